"""Every study, in the order of the report."""

from collections.abc import Sequence

from jobs.studies import (
    calibration,
    damage,
    edits,
    farms,
    gpt,
    lora,
    minilm,
    noise,
    phases,
    precision,
    published,
    sample_models,
    siblings,
    spikes,
    training,
    universality,
    weightwatcher,
)
from jobs.studies.study import Study
from schemas.errors import UsageError

STUDIES: tuple[Study, ...] = (
    calibration.CALIBRATION,
    calibration.TRUNCATION,
    noise.NOISE,
    spikes.SPIKES,
    phases.PHASES,
    universality.UNIVERSALITY,
    weightwatcher.WEIGHTWATCHER,
    minilm.MINILM,
    minilm.SCALE,
    published.STRATA,
    published.AVERAGES,
    published.SHARES,
    gpt.GPT,
    training.TRAINING,
    edits.EDITS,
    farms.FARMS,
    lora.LORA,
    noise.POOLED,
    siblings.SIBLINGS,
    damage.DAMAGE,
    precision.PRECISION,
    sample_models.CHECKPOINTS,
)

ALL = "all"


def chosen(names: Sequence[str], quick: bool = False) -> tuple[Study, ...]:
    """The studies of these names or numbers, each once; "all" means all, or all quick ones.

    Raises UsageError for an unknown name, and for one without a quick form when that is asked for.
    """
    if ALL in names:
        return tuple(study for study in STUDIES if study.quick or not quick)
    known = {key.lower(): study for study in STUDIES for key in (study.name, study.id)}
    unknown = [name for name in names if name.lower() not in known]
    if unknown:
        raise UsageError(f"no study {', '.join(unknown)}; there are {', '.join(s.name for s in STUDIES)}")
    found = tuple(dict.fromkeys(known[name.lower()] for name in names))
    slow = [study.name for study in found if quick and not study.quick]
    if slow:
        raise UsageError(f"{', '.join(slow)} has no quick form: leave out --quick")
    return found
