"""Create or update the Space on the Hugging Face Hub from `Spacefile`. Without --yes it only says what it would do.

    python scripts/publish_space.py                         check README.md and Spacefile
    python scripts/publish_space.py --write-readme          put the card on top of README.md
    python scripts/publish_space.py OWNER/NAME              what would be done
    python scripts/publish_space.py OWNER/NAME --yes        do it, as the account of `hf auth login`

Exit code 0: done or in order; 1: the Hub refused or README.md differs; 2: the call or Spacefile is wrong.
Values of secrets are taken from the environment and never shown.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import yaml  # comes with huggingface_hub

from cache.errors import DepthmapError, UsageError

SPACEFILE, README = ROOT / "Spacefile", ROOT / "README.md"
CARD_KEYS = ("title", "emoji", "colorFrom", "colorTo", "sdk", "sdk_version", "python_version", "app_file",
             "license", "models", "preload_from_hub")  # those that this Space cannot do without
ZERO_TORCH = "torch>=2.10,<2.12"  # ZeroGPU takes 2.8 to 2.11; we need 2.10
_FRONT = re.compile(r"\A---\r?\n(.*?)^---[ \t]*\r?\n", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Space:
    """What `Spacefile` says. `card` is README's front matter; `secrets` are names, never values."""

    card: dict[str, object]
    hardware: str
    files: dict[str, list[str]]
    sleep_time: int | None = None
    private: bool = True
    variables: dict[str, str] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)
    volumes: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Step:
    """One call to the Hub, in words for people and as a function of the client."""

    words: str
    act: Callable[[object], object] = field(repr=False)


def read(path: Path = SPACEFILE) -> Space:
    """The description of the Space. Raises UsageError for a file that is not one."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise UsageError("The Spacefile cannot be read.", where=path.name, got=" ".join(str(error).split())) from error
    known, needed = {item.name for item in fields(Space)}, {"card", "files", "hardware"}
    if not isinstance(found, dict) or not needed <= set(found) <= known:
        raise UsageError("The Spacefile is not complete.", where=path.name, expected=", ".join(sorted(known)),
                         got=", ".join(map(str, found)) if isinstance(found, dict) else "no mapping")
    missing = [key for key in CARD_KEYS if key not in found["card"]]
    if missing:
        raise UsageError("The card lacks something.", where=path.name, expected=", ".join(missing))
    return Space(**found)


def front_matter(space: Space) -> str:
    """The card as it stands on top of README.md."""
    return f"---\n{yaml.safe_dump(space.card, sort_keys=False, allow_unicode=True, width=200)}---\n"


def drift(space: Space, readme: str) -> list[str]:
    """Where README's front matter differs from the Spacefile, one sentence each; none if it is as it should be."""
    match = _FRONT.match(readme)
    try:
        found = yaml.safe_load(match[1]) if match else {}
    except yaml.YAMLError as error:
        return [f"README.md begins with a block that is not YAML: {' '.join(str(error).split())}"]
    if not isinstance(found, dict):
        return ["README.md begins with a block that is no card."]
    keys = [*space.card, *(key for key in found if key not in space.card)]
    return [f"{key}: README.md says {found.get(key)!r}, Spacefile {space.card.get(key)!r}."
            for key in keys if found.get(key) != space.card.get(key)]


def with_card(space: Space, readme: str) -> str:
    """README's text with the card on top, in place of the one it had."""
    return front_matter(space) + _FRONT.sub("", readme, count=1)


def steps(space: Space, repo: str, environ: Mapping[str, str]) -> list[Step]:
    """What publishing does, in order: a Space must be there before its settings, and those before its first start."""
    from huggingface_hub import SpaceHardware, Volume

    hardware = _hardware(space.hardware, SpaceHardware)
    volumes = [Volume(**{"type": "bucket", **volume}) for volume in space.volumes]
    found = [Step(f"create {'private' if space.private else 'public'} Space {repo}, unless it is there",
                  lambda api: api.create_repo(repo, repo_type="space", space_sdk=space.card["sdk"],
                                              private=space.private, exist_ok=True))]
    found += [_variable(repo, key, str(value)) for key, value in space.variables.items()]
    found += [_secret(repo, name, environ.get(name)) for name in space.secrets]
    if volumes:
        found.append(Step(f"mount {', '.join(volume['mount_path'] for volume in space.volumes)}",
                          lambda api: api.set_space_volumes(repo, volumes)))
    if space.hardware.startswith("zero"):
        found.append(Step(f"install {ZERO_TORCH} before the rest, as ZeroGPU needs it", lambda api: api.upload_file(
            path_or_fileobj=f"{ZERO_TORCH}\n".encode(), path_in_repo="pre-requirements.txt", repo_id=repo,
            repo_type="space", commit_message="Publish")))
    found.append(Step(f"upload {len(uploaded(space))} files, and remove those that are gone",
                      lambda api: api.upload_folder(
                          repo_id=repo, repo_type="space", folder_path=ROOT, allow_patterns=space.files["allow"],
                          ignore_patterns=space.files["ignore"], delete_patterns=space.files["allow"],
                          commit_message="Publish")))
    found.append(Step(f"run on {space.hardware}",
                      lambda api: api.request_space_hardware(repo, hardware, sleep_time=space.sleep_time)))
    return found


def _variable(repo: str, key: str, value: str) -> Step:
    return Step(f"set variable {key} = {value}", lambda api: api.add_space_variable(repo, key, value))


def _secret(repo: str, name: str, value: str | None) -> Step:
    if not value:
        return Step(f"leave secret {name} as it is: it is not in the environment", lambda api: None)
    return Step(f"set secret {name} from the environment", lambda api: api.add_space_secret(repo, name, value))


def _hardware(name: str, known):
    try:
        return known(name)
    except ValueError as error:
        raise UsageError("There is no such hardware.", where="Spacefile", got=name,
                         expected=", ".join(item.value for item in known)) from error


def uploaded(space: Space) -> list[str]:
    """The files that go to the Space, relative to the root."""
    from huggingface_hub.utils import filter_repo_objects

    places = [ROOT, *(ROOT / name for name in sorted({pattern.split("/")[0] for pattern in space.files["allow"]
                                                      if "/" in pattern}))]
    found = [path for place in places for path in (place.rglob("*") if place != ROOT else place.glob("*"))]
    names = sorted({path.relative_to(ROOT).as_posix() for path in found if path.is_file()})
    return list(filter_repo_objects(names, allow_patterns=space.files["allow"], ignore_patterns=space.files["ignore"]))


def publish(api, todo: list[Step], secrets: list[str]) -> None:
    """Take every step. Raises DepthmapError with the Hub's reason, without the value of any secret."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    for number, step in enumerate(todo, 1):
        print(f"[{number}/{len(todo)}] {step.words}", flush=True)
        try:
            step.act(api)
        except (HfHubHTTPError, LocalTokenNotFoundError, httpx.HTTPError, OSError, ValueError) as error:
            reason = " ".join(str(error).split())
            for value in secrets:
                reason = reason.replace(value, "***")
            raise DepthmapError("The Hub did not do this step.", where=step.words, got=reason,
                                next_step="Cure the reason and publish again; steps that are done do no harm."
                                ) from None  # the cause's text may hold a secret


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    top.add_argument("repo", nargs="?", metavar="OWNER/NAME", help="the Space; without it only README.md is checked")
    top.add_argument("--yes", action="store_true", help="do it")
    top.add_argument("--write-readme", action="store_true", help="put the card on top of README.md")
    return top


def main(argv: list[str] | None = None, *, api=None, readme: Path = README, spacefile: Path = SPACEFILE,
         environ: Mapping[str, str] = os.environ) -> int:
    """Run the command; the exit code. `api` replaces the Hub's client."""
    try:
        args = parser().parse_args(argv)
    except SystemExit as done:  # argparse has printed help or the mistake
        return int(done.code or 0)
    try:
        return _run(args, api, readme, read(spacefile), environ)
    except UsageError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except DepthmapError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1


def _run(args: argparse.Namespace, api, readme: Path, space: Space, environ: Mapping[str, str]) -> int:
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    if args.write_readme:
        text = with_card(space, text)
        growing = readme.with_name(".README.growing")
        growing.write_text(text, encoding="utf-8")
        growing.replace(readme)
    differences = drift(space, text)
    for sentence in differences:
        print(f"Error: {sentence}", file=sys.stderr)
    if differences:
        print("Say --write-readme to make README.md agree.", file=sys.stderr)
        return 1
    if not args.repo:
        print("README.md agrees with Spacefile.")
        return 0
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", args.repo):
        raise UsageError("This does not name a Space.", expected="OWNER/NAME", got=args.repo)
    return _publish(args, api, space, environ)


def _publish(args: argparse.Namespace, api, space: Space, environ: Mapping[str, str]) -> int:
    todo = steps(space, args.repo, environ)
    if not args.yes:
        print("\n".join([f"Would {step.words}." for step in todo] + ["Nothing was done. Say --yes to do it."]))
        return 0
    if api is None:
        from huggingface_hub import HfApi

        api = HfApi()
    publish(api, todo, [environ[name] for name in space.secrets if environ.get(name)])
    print(f"Published: https://huggingface.co/spaces/{args.repo}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
