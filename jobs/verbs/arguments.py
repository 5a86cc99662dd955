"""What several verbs are told on the command line -> what is meant by it."""

from pathlib import Path

from scanner.sources.targets import parse_targets
from schemas.config import ScanConfig, from_toml, profile_config
from schemas.errors import ScanError, UsageError
from schemas.work import Target


def one_target(text: str) -> Target:
    """The one model that `text` names. Raises UsageError where it names none or several."""
    found = parse_targets([text])
    if len(found) != 1:
        raise UsageError(f"{text} holds {len(found)} models; name one of them")
    return found[0]


def chosen_config(profile: str, config_file: Path | None) -> ScanConfig:
    """The profile with the overrides of `config_file`, if there is one. Raises ConfigError."""
    return from_toml(config_file, profile) if config_file else profile_config(profile)


def told(target: Target, error: ScanError) -> str:
    """What went wrong with a target: the message, after the target where it does not begin with it."""
    named = error.message.startswith((str(target), target.repo_id))
    return error.message if named else f"{target}: {error.message}"
