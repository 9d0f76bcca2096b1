"""What the reports show of a reasoning run."""

from collections.abc import Mapping, Sequence

from videmo_jax.reports.clips import ShownClip
from videmo_jax.reports.reasoning import ReasoningView, ShownCandidate, ShownLevel
from videmo_jax.sampling.reasoning import Reasoning, Settings


def reasoning_view(
    result: Reasoning,
    settings: Settings,
    *,
    title: str,
    clips: Sequence[ShownClip],
    question: str = "",
    about: Mapping[str, str],
) -> ReasoningView:
    """The view of one outcome; `about` are facts that the settings do not hold."""
    levels = [
        ShownLevel(
            step.level,
            step.question,
            [ShownCandidate(each.answer.text, each.scores, each.score, each.answer.cut) for each in step.candidates],
            step.chosen,
        )
        for step in result.steps
    ]
    facts = {
        "candidates": str(settings.candidates),
        "scorer": str(settings.scorer),
        "temperature": f"{settings.temperature:g}",
        "new tokens, at most": str(settings.max_new_tokens),
    }
    answer = result.answer.text if result.answer else ""
    return ReasoningView(title, clips, result.tree, levels, str(settings.scorer), question, answer, {**about, **facts})
