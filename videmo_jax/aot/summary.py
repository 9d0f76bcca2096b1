"""A compiled step in words and bars."""

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table

from videmo_jax.aot.compiled import MARGIN, Compiled

GIB = 2**30


def summary(compiled: Compiled) -> RenderableType:
    """What a person wants to know before booking the slice."""
    told = compiled.to_json()
    facts = Table.grid(padding=(0, 2))
    mesh = " x ".join(f"{axis} {size}" for axis, size in told["mesh"].items()) or "one device"
    facts.add_row("model", f"{told['parameters'] / 1e9:.2f} B parameters")
    facts.add_row("slice", f"{told['devices']} {told['chip']} in {told['slices']} slice(s): {mesh}")
    facts.add_row(
        "batch",
        f"{told['rows']} rows of {compiled.budget.tokens:,} tokens and {compiled.budget.slabs} slabs: "
        f"{told['tokens_per_step']:,} tokens a step, {told['tokens_per_chip']:,.0f} a chip",
    )
    bar = ProgressBar(total=1.0, completed=min(told["hbm_share"], 1.0), width=30)
    verdict = "fits" if compiled.fits else f"does not fit (at most {MARGIN:.0%} may be taken)"
    used = f"{told['hbm_bytes'] / GIB:.1f} of {told['hbm_limit'] / GIB:.1f} GiB, {told['hbm_share']:.0%}: {verdict}"
    facts.add_row("memory", bar)
    facts.add_row("", used)
    facts.add_row(
        "model FLOPs", f"{told['flops_per_step']:.3g} a step; {told['executed_flops_per_step']:.3g} are executed"
    )
    if compiled.moved is None:
        return Group(facts, "the program was not made: no collectives, no bound")
    for kind, size in sorted(told["collective_bytes_by_kind"].items(), key=lambda item: -item[1]):
        facts.add_row(kind, f"{size / 1e9:,.2f} GB a device in {told['collectives_by_kind'][kind]:,} times")
    if told["collective_factor"] is not None:
        least = f"the least is {told['least_collective_bytes'] / 1e9:,.2f} GB: {told['collective_factor']:.2f} x"
        facts.add_row("collectives", f"{told['collective_bytes'] / 1e9:,.2f} GB; {least}")
    bounds = ", ".join(f"{name} {seconds:.3f} s" for name, seconds in told["bound_seconds"].items())
    facts.add_row("a step takes", f"at least: {bounds}")
    facts.add_row("bound on MFU", f"{told['mfu_bound']:.0%}")
    facts.add_row("compiled in", f"{told['compile_seconds']:.0f} s, {told['host_bytes'] / GIB:.1f} GiB of this host")
    return facts
