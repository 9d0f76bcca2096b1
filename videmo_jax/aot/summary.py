"""Compiled steps in words and bars."""

from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table

from videmo_jax.aot.compiled import Compiled
from videmo_jax.aot.program import MARGIN

GIB = 2**30


def summary(compiled: Compiled) -> RenderableType:
    """What a person wants to know before booking the slice."""
    figures = compiled.to_json()
    facts = Table.grid(padding=(0, 2))
    mesh = " x ".join(f"{axis} {size}" for axis, size in figures["mesh"].items()) or "one device"
    versions = compiled.versions
    by = f"jax {versions.jax}, libtpu {versions.libtpu}, Python {versions.python}"
    facts.add_row("compiler", by + (f"\n[red]{versions.warning}[/]" if versions.warning else ""))
    facts.add_row("model", f"{figures['parameters'] / 1e9:.2f} B parameters")
    facts.add_row("slice", f"{figures['devices']} {figures['chip']} in {figures['slices']} slice(s): {mesh}")
    answers = f", {compiled.answers} answers of up to {compiled.slots:,} tokens each" if compiled.answers else ""
    facts.add_row(
        "batch",
        f"{figures['rows']} rows of {compiled.budget.tokens:,} tokens and {compiled.budget.slabs} slabs{answers}: "
        f"{figures['tokens_per_step']:,} tokens a step, {figures['tokens_per_chip']:,.0f} a chip",
    )
    bar = ProgressBar(total=1.0, completed=min(figures["hbm_share"], 1.0), width=30)
    verdict = "fits" if compiled.fits else f"does not fit (at most {MARGIN:.0%} may be taken)"
    facts.add_row("memory", bar)
    facts.add_row("", f"{_memory(figures)}: {verdict}")
    facts.add_row(
        "model FLOPs", f"{figures['flops_per_step']:.3g} a step; {figures['executed_flops_per_step']:.3g} are executed"
    )
    if "programs" in figures:
        return Group(facts, _programs(figures["programs"]))
    if figures["collective_bytes"] is None:
        return Group(facts, "the program was not made: no collectives, no bound")
    for kind, size in sorted(figures["collective_bytes_by_kind"].items(), key=lambda item: -item[1]):
        facts.add_row(kind, f"{size / 1e9:,.2f} GB a device in {figures['collectives_by_kind'][kind]:,} times")
    if figures["collective_factor"] is not None:
        least = f"the least is {figures['least_collective_bytes'] / 1e9:,.2f} GB: {figures['collective_factor']:.2f} x"
        facts.add_row("collectives", f"{figures['collective_bytes'] / 1e9:,.2f} GB; {least}")
    facts.add_row("a step takes", f"at least: {_bounds(figures)}")
    facts.add_row("bound on MFU", f"{figures['mfu_bound']:.0%}")
    facts.add_row(
        "compiled in", f"{figures['compile_seconds']:.0f} s, {figures['host_bytes'] / GIB:.1f} GiB of this host"
    )
    return facts


def _programs(programs: dict[str, dict[str, Any]]) -> Table:
    """One row a program; those of the rollout hold for answers as long as they may get."""
    table = Table(box=None, padding=(0, 2))
    for title in ("program", "memory", "", "model FLOPs", "collectives", "takes at least", "compiled in"):
        table.add_column(title)
    for name, figures in programs.items():
        moved = figures["collective_bytes"]
        table.add_row(
            name,
            _memory(figures),
            "fits" if figures["fits"] else "does not fit",
            f"{figures['flops_per_step']:.3g}" if figures["flops_per_step"] else "-",
            "not made" if moved is None else f"{moved / 1e9:,.2f} GB",
            _bounds(figures) if moved is not None else "-",
            f"{figures['compile_seconds']:.0f} s",
        )
    return table


def _memory(figures: dict[str, Any]) -> str:
    return f"{figures['hbm_bytes'] / GIB:.1f} of {figures['hbm_limit'] / GIB:.1f} GiB, {figures['hbm_share']:.0%}"


def _bounds(figures: dict[str, Any]) -> str:
    return ", ".join(f"{name} {seconds:.3f} s" for name, seconds in figures["bound_seconds"].items())
