"""The guide is true: its commands run, its tables agree with the program, its messages exist."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cache import rest, wire
from cache.actions import Actions
from scripts import manage_commands, manage_models, setup_models
from tests import faces
from tests.hub_server import HubServer
from tests.test_rest import estimate, save_png16

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "MODEL_CACHING_GUIDE.md").read_text(encoding="utf-8")
BLOCKS = [(TEXT[:match.start()].count("\n") + 1, match[1].strip(), match[2])
          for match in re.finditer(r"^```([^\n]*)\n(.*?)^```$", TEXT, re.M | re.S)]
RUN = [(line, info, body) for line, info, body in BLOCKS if info in ("sh", "python")]
SCRIPTS = {"scripts/manage_models.py": manage_models, "scripts/setup_models.py": setup_models}


class Reader:
    """Somebody who types what the guide says, in a folder with a photo, with a page running."""

    def __init__(self, manager, actions, url, patch):
        self.manager, self.actions, self.url, self.patch = manager, actions, url, patch

    def sh(self, body: str) -> None:
        for line in body.replace("\\\n", " ").splitlines():
            words = shlex.split(line.replace("JOB", self._last_job()))
            with self._variables(words) as rest_of_it:
                self._command(rest_of_it, line)

    def python(self, body: str) -> None:
        exec(compile(body, "guide", "exec"), {})

    def _command(self, words: list[str], line: str) -> None:
        if words[0] == "export":
            self.patch.setenv(*words[1].split("=", 1))
        elif words[0] == "python":
            assert SCRIPTS[words[1]].main(words[2:], manager=self.manager) == 0, line
        else:
            assert words[0] == "curl", f"do not know how to run: {line}"
            done = subprocess.run(["curl", "-sS", "--fail-with-body", *map(self._address, words[1:])],
                                  capture_output=True, timeout=faces.PATIENCE)
            assert done.returncode == 0, (line, done.stdout, done.stderr)

    def _address(self, word: str) -> str:
        return os.path.expandvars(word.replace("http://127.0.0.1:7860", self.url))

    def _variables(self, words: list[str]):
        from contextlib import contextmanager

        @contextmanager
        def given():
            count = next(place for place, word in enumerate(words) if not re.match(r"[A-Z_]+=", word))
            with pytest.MonkeyPatch.context() as patch:
                for name, value in (word.split("=", 1) for word in words[:count]):
                    patch.setenv(name, value)
                yield words[count:]

        return given()

    def _last_job(self) -> str:
        jobs = self.actions.jobs.list()
        return jobs[-1].id if jobs else "JOB"


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Every block run in order; by line, the error or None."""
    folder = tmp_path_factory.mktemp("guide")
    Image.fromarray(np.full((48, 64, 3), 90, np.uint8)).save(folder / "photo.jpg")
    with HubServer() as hub, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_CACHE", str(folder / "hub"))
        patch.chdir(folder)
        faces.online(patch, hub)
        manager = faces.make_manager(hub, folder / "models")
        for place in ("depth.estimator.manager", "depth.supply.manager"):  # the same function, by both its names
            patch.setattr(place, lambda directory=None: manager)
        actions = Actions(lambda: manager)
        routes = rest.routes(actions, loopback_bound=True, depth=estimate, save_png16=save_png16)
        with faces.served(routes) as url:
            reader = Reader(manager, actions, url, patch)
            yield {line: attempt(getattr(reader, info), body) for line, info, body in RUN}


def attempt(run, body):
    """The error, or None; a later block may run all the same."""
    try:
        return run(body)
    except Exception as error:  # each block's own test shows it
        return error


@pytest.mark.parametrize("line", [line for line, _, _ in RUN], ids=lambda line: f"line-{line}")
def test_block_runs(outcomes, line):
    assert outcomes[line] is None


def test_blocks_that_do_not_run_say_why():
    others = [info for _, info, _ in BLOCKS if info not in ("sh", "python", "")]
    assert others and all(re.fullmatch(r"\w+ no-test: .+", info) for info in others)


def options(parser) -> set[str]:
    """All long options of a parser and of its commands."""
    found = set()
    for action in parser._actions:
        found |= {word for word in action.option_strings if word.startswith("--")}
        if isinstance(action.choices, dict):
            for sub in action.choices.values():
                found |= options(sub)
    return found - {"--help"}


def section(title: str) -> str:
    return re.split(r"^#{2,3} ", TEXT.split(f"# {title}\n", 1)[1], maxsplit=1, flags=re.M)[0]


@pytest.mark.parametrize("name, module", [("setup_models.py", setup_models), ("manage_models.py", manage_models)])
def test_guide_names_exactly_the_options_there_are(name, module):
    common = set() if name == "setup_models.py" else {"--json", "--cache-dir"}
    assert set(re.findall(r"`(--[a-z-]+)", section(name))) | common == options(module.parser())


def test_guide_names_exactly_the_commands_there_are():
    rows = re.findall(r"^\| `([a-z]+)` \|", section("manage_models.py"), re.M)
    assert rows == list(manage_commands.COMMANDS)


@pytest.mark.parametrize("command", manage_commands.COMMANDS)
def test_help_of_a_command_names_its_options(command, capsys):
    assert manage_models.main([command, "--help"]) == 0
    row = next(line for line in section("manage_models.py").splitlines() if line.startswith(f"| `{command}` "))
    text = capsys.readouterr().out
    assert [word for word in re.findall(r"`(--[a-z-]+)", row) if word not in text] == []


def test_guide_names_exactly_the_routes_there_are():
    routes = rest.routes(Actions(lambda: None), loopback_bound=True, depth=estimate)
    served = {(method, route.path) for route in routes if route.include_in_schema for method in route.methods}
    assert set(re.findall(r"^\| `([A-Z]+)` \| `([^`]+)` \|", section("REST"), re.M)) == served


def test_guide_names_exactly_the_codes_there_are():
    rows = re.findall(r"^\| (\d{3}) \| (.+) \|$", section("REST"), re.M)
    assert {code: int(status) for status, codes in rows for code in re.findall(r"`(\w+)`", codes)} == wire.STATUS


def test_guide_names_every_variable_of_the_cache():
    read = set()
    for path in [*(ROOT / "cache").rglob("*.py"), *(ROOT / "scripts").glob("*_models.py")]:
        read |= set(re.findall(r"DEPTHMAP_[A-Z_]+", path.read_text(encoding="utf-8")))
    assert read == set(re.findall(r"`(DEPTHMAP_[A-Z_]+)`", section("Environment variables")))


def source_text() -> str:
    paths = [path for room in ("cache", "depth", "scripts") for path in (ROOT / room).rglob("*.py")]
    return "".join(path.read_text(encoding="utf-8") for path in paths)


@pytest.mark.parametrize("message", re.findall(r"^\| `([^`]+)` \|", section("Troubleshooting"), re.M))
def test_message_of_the_troubleshooting_table_exists(message):
    assert message in source_text()


def test_links_of_the_guide_lead_somewhere():
    headings = {re.sub(r"[^a-z0-9 -]", "", line.lower()).strip().replace(" ", "-")
                for line in re.findall(r"^#+ (.+)$", TEXT, re.M)}
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= headings
