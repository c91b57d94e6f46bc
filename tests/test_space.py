"""The Space: one description, and a README, pins, models and a publisher that agree with it."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from unittest.mock import create_autospec

import httpx
import pytest
import yaml
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from huggingface_hub import HfApi, SpaceHardware, metadata_load
from huggingface_hub.errors import HfHubHTTPError
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from cache.errors import UsageError
from depth.models import MODELS, find
from scripts import publish_space
from scripts.publish_space import drift, front_matter, main, read, steps, uploaded, with_card
from tests.app_server import REMOTE, remote_weights, serving
from tests.brightness import picture
from tests.hub_server import HubServer

ROOT = Path(__file__).resolve().parents[1]
SECRET = "correct-horse-battery-staple"
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}


@pytest.fixture
def space():
    return read()


@pytest.fixture
def readme(space, tmp_path):
    path = tmp_path / "README.md"
    path.write_text(front_matter(space) + "\n# Depthmap\n", encoding="utf-8")
    return path


CLIENT = create_autospec(HfApi, instance=True)  # once: it walks through the whole client


@pytest.fixture
def api():
    """The Hub's client with its real signatures: a wrong argument fails as it would for real."""
    CLIENT.reset_mock(side_effect=True)
    return CLIENT


def called(api) -> list[str]:
    return [name for name, _, _ in api.method_calls]


def changed(tmp_path, **fields) -> Path:
    """A Spacefile that differs from ours in some fields; None takes one away."""
    found = yaml.safe_load(publish_space.SPACEFILE.read_text(encoding="utf-8")) | fields
    path = tmp_path / "Spacefile"
    path.write_text(yaml.safe_dump({key: value for key, value in found.items() if value is not None}))
    return path


# --- the description and what must agree with it

def test_readme_begins_with_the_card_of_the_spacefile(space):
    assert drift(space, publish_space.README.read_text(encoding="utf-8")) == []


def test_first_lines_say_whose_file_it_is_and_who_reads_it():
    head = publish_space.SPACEFILE.read_text(encoding="utf-8").split("\n\n")[0]
    assert "Depthmap's own" in head and "scripts/publish_space.py" in head and "tests/test_space.py" in head


def test_gradio_version_is_the_pinned_one(space):
    pinned = re.search(r"^gradio==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]
    assert space.card["sdk_version"] == pinned


def required() -> dict[str, SpecifierSet]:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {requirement.name: requirement.specifier for requirement in found}


def test_requirements_are_ranges_that_a_space_can_meet(space):
    """The Space installs gradio and the Hub's client itself; a pin of ours could not be met beside those."""
    assert not [name for name, versions in required().items() if any(one.operator == "==" for one in versions)]
    assert space.card["sdk_version"] in required()["gradio"]
    assert space.card["python_version"] in {"3.10", "3.12"}  # those that ZeroGPU has


def test_preloaded_file_is_the_first_source_of_the_spaces_default_model(space):
    source = find(space.variables["DEPTHMAP_MODEL"]).sources[0]
    assert space.card["preload_from_hub"] == [f"{source.repo} {source.filename} {source.revision}"]


def test_models_of_the_card_are_repositories_of_the_table(space):
    known = {source.repo for model in MODELS for source in model.sources if source.repo}
    assert set(space.card["models"]) <= known and space.card["preload_from_hub"][0].split()[0] in space.card["models"]


def test_card_holds_values_that_the_hub_takes(space):
    assert {space.card["colorFrom"], space.card["colorTo"]} <= COLOURS
    assert len(space.card["short_description"]) <= 60
    assert (ROOT / space.card["app_file"]).is_file() and space.card["sdk"] == "gradio"
    assert isinstance(space.card["python_version"], str)


def test_a_secret_is_a_name_that_the_app_knows(space):
    from cache import access

    assert space.secrets == [access.TOKEN]


def test_variables_are_ones_that_the_cache_understands(space, monkeypatch):
    from cache import places

    for key, value in space.variables.items():
        monkeypatch.setenv(key, str(value))
    assert places.max_bytes() and places.formats(("pt", "h5", "pkl"))


def test_everything_the_app_imports_is_uploaded_and_nothing_else(space):
    names = uploaded(space)
    rooms = {path.relative_to(ROOT).as_posix() for room in ("cache", "depth") for path in (ROOT / room).rglob("*.py")}
    assert rooms | {"app.py", "requirements.txt"} <= set(names)
    assert not [name for name in names if name.startswith((".", "tests/", "scripts/", "benchmarks/"))]


def test_app_and_its_rooms_import_nothing_that_stays_behind(space):
    """`scripts` and `tests` are not on the Space."""
    for name in uploaded(space):
        if name.endswith(".py"):
            tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
            modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
            modules += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
            assert not {module.split(".")[0] for module in modules} & {"scripts", "tests", "benchmarks"}, name


# --- a Space, as far as one machine can be one

@pytest.fixture(scope="module")
def visited(tmp_path_factory):
    """The app under a Space's variables and ours, with a Hub cache as the build leaves it, and no network.

    The Hub's own client fetches the file at its commit, as `preload_from_hub` does; then the Hub is gone.
    SYSTEM=spaces is left out: with it, Gradio wants the `spaces` package that is there on a Space alone.
    """
    home = tmp_path_factory.mktemp("space")
    with HubServer() as hub:
        file = hub.add("org/preloaded", "weights.pt", remote_weights())
        fetch = f"from huggingface_hub import hf_hub_download as f; f({file.repo!r}, {file.filename!r}, " \
                f"revision={file.revision!r})"
        subprocess.run([sys.executable, "-c", fetch], check=True, env=os.environ | {
            "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.endpoint, "HF_HUB_CACHE": str(home / "hf" / "hub")})
    variables = {key: str(value) for key, value in read().variables.items()} | {"DEPTHMAP_MODEL": REMOTE}
    with serving(home, remote=file, SPACE_ID="me/depth", GRADIO_SSR_MODE="True",
                 GRADIO_SERVER_NAME="0.0.0.0", HF_HUB_OFFLINE="1",
                 **variables) as server:
        yield server


@pytest.fixture(scope="module")
def visitor(visited, tmp_path_factory):
    return Client(visited.url, verbose=False, download_files=tmp_path_factory.mktemp("downloads"))


def test_first_visitor_gets_depth_of_the_preloaded_model_without_a_download(visitor, visited, tmp_path):
    photo = picture(tmp_path / "photo.png")
    answer = visitor.predict(image=handle_file(photo), api_name="/predict")  # the model is the page's default
    facts = next(one for one in answer if isinstance(one, dict) and "model" in one)
    assert facts["model"] == REMOTE and "Traceback" not in visited.log()
    assert [path.name for path in (visited.models / REMOTE).glob("*.pt")]  # as DEPTHMAP_FORMATS says


def test_visitor_of_a_space_changes_nothing(visitor):
    for endpoint, inputs in (("/download_model", ["MiDaS", ""]), ("/clear_models", ["all", True, ""]),
                             ("/optimize_cache", [True, ""])):
        with pytest.raises(AppError, match="switched off on this Space"):
            visitor.predict(*inputs, api_name=endpoint)


# --- README's front matter

def test_card_is_read_by_the_hubs_own_reader(space, readme):
    assert metadata_load(readme) == space.card


def test_drift_names_what_differs_on_both_sides(space, readme):
    text = readme.read_text().replace("title: Depthmap", "title: Other").replace("license: mit\n", "pinned: true\n")
    assert drift(space, text) == [
        "title: README.md says 'Other', Spacefile 'Depthmap'.", "license: README.md says None, Spacefile 'mit'.",
        "pinned: README.md says True, Spacefile None."]


@pytest.mark.parametrize("readme_text", ["---\n[: x\n---\n", "---\njust words\n---\n"])
def test_block_that_is_no_card_is_told(space, readme_text):
    assert len(drift(space, readme_text)) == 1


@pytest.mark.parametrize("text", ["# Depthmap\n\ntext\n", "---\ntitle: Old\n---\n# Depthmap\n\ntext\n",
                                  "# A\n\n---\n\nb\n\n---\n"])
def test_card_is_put_on_top_and_the_text_stays(space, text):
    written = with_card(space, text)
    assert drift(space, written) == []
    assert written == front_matter(space) + re.sub(r"\A---.*?---\n", "", text, flags=re.DOTALL)
    assert with_card(space, written) == written


def test_write_readme_makes_it_agree(tmp_path, capsys):
    path = tmp_path / "README.md"
    path.write_text("# Depthmap\n")
    assert main([], readme=path) == 1
    assert main(["--write-readme"], readme=path) == 0
    assert main([], readme=path) == 0
    assert [item.name for item in tmp_path.iterdir()] == ["README.md"]


# --- publishing

def test_dry_run_is_the_default_and_calls_nothing(api, readme, capsys):
    assert main(["me/depth"], api=api, readme=readme, environ={}) == 0
    told = capsys.readouterr().out
    assert not api.method_calls and "Nothing was done" in told and "Would create private Space me/depth" in told


def test_steps_come_in_the_order_that_works(api, readme, tmp_path, space):
    spacefile = changed(tmp_path, volumes=[{"source": "me/bucket", "mount_path": "/data"}])
    environ = {"DEPTHMAP_ADMIN_TOKEN": SECRET}
    assert main(["me/depth", "--yes"], api=api, readme=readme, spacefile=spacefile, environ=environ) == 0
    assert called(api) == ["create_repo", *["add_space_variable"] * len(space.variables), "add_space_secret",
                           "set_space_volumes", "upload_folder", "request_space_hardware"]


def test_calls_say_what_the_spacefile_says(api, readme, space):
    main(["me/depth", "--yes"], api=api, readme=readme, environ={"DEPTHMAP_ADMIN_TOKEN": SECRET})
    api.create_repo.assert_called_once_with("me/depth", repo_type="space", space_sdk="gradio", private=True,
                                            exist_ok=True)
    api.add_space_secret.assert_called_once_with("me/depth", "DEPTHMAP_ADMIN_TOKEN", SECRET)
    api.request_space_hardware.assert_called_once_with("me/depth", SpaceHardware.CPU_BASIC, sleep_time=None)
    upload = api.upload_folder.call_args.kwargs
    assert (upload["repo_type"], upload["allow_patterns"]) == ("space", space.files["allow"])


def test_space_that_lends_gpus_gets_a_torch_that_it_takes(api, readme, tmp_path):
    spacefile = changed(tmp_path, hardware="zero-a10g")
    assert main(["me/depth", "--yes"], api=api, readme=readme, spacefile=spacefile, environ={}) == 0
    upload = api.upload_file.call_args.kwargs
    assert (upload["path_in_repo"], upload["repo_type"]) == ("pre-requirements.txt", "space")
    pinned = Requirement(upload["path_or_fileobj"].decode().strip())
    for version in ("2.10.0", "2.11.0"):
        assert version in pinned.specifier and version in required()["torch"]  # so the second install keeps it
    assert "2.12.0" not in pinned.specifier
    assert called(api).index("upload_file") < called(api).index("upload_folder")


def test_missing_secret_is_left_as_it_is(api, readme, capsys):
    assert main(["me/depth", "--yes"], api=api, readme=readme, environ={}) == 0
    assert "add_space_secret" not in called(api) and "leave secret DEPTHMAP_ADMIN_TOKEN" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["me/depth"], ["me/depth", "--yes"]])
def test_secret_is_never_shown(api, readme, capsys, words):
    main(words, api=api, readme=readme, environ={"DEPTHMAP_ADMIN_TOKEN": SECRET})
    told = capsys.readouterr()
    assert SECRET not in told.out + told.err


def test_refusal_of_the_hub_is_one_sentence_without_the_secret(api, readme, capsys):
    request = httpx.Request("POST", "https://hub.example")
    api.add_space_secret.side_effect = HfHubHTTPError(
        f"403 Forbidden: {SECRET}", response=httpx.Response(403, request=request))
    assert main(["me/depth", "--yes"], api=api, readme=readme, environ={"DEPTHMAP_ADMIN_TOKEN": SECRET}) == 1
    told = capsys.readouterr()
    assert "set secret DEPTHMAP_ADMIN_TOKEN" in told.err and "403" in told.err
    assert SECRET not in told.out + told.err
    assert "upload_folder" not in called(api)


def test_readme_that_differs_is_not_published(api, tmp_path, capsys):
    (tmp_path / "README.md").write_text("# Depthmap\n")
    assert main(["me/depth", "--yes"], api=api, readme=tmp_path / "README.md", environ={}) == 1
    assert not api.method_calls and "--write-readme" in capsys.readouterr().err


def test_record_of_a_step_never_holds_the_secret_in_words(space):
    assert SECRET not in repr(steps(space, "me/depth", {"DEPTHMAP_ADMIN_TOKEN": SECRET}))


@pytest.mark.parametrize("repo", ["depth", "me/depth/more", "https://huggingface.co/me/depth"])
def test_name_of_no_space_is_refused(api, readme, repo):
    assert main([repo, "--yes"], api=api, readme=readme) == 2
    assert not api.method_calls


@pytest.mark.parametrize(("fields", "word"), [
    ({"hardware": "abacus"}, "cpu-basic"), ({"hardware": None}, "not complete"), ({"colour": "red"}, "not complete"),
    ({"card": {"title": "x"}}, "sdk_version"),
])
def test_wrong_spacefile_is_one_sentence(api, readme, tmp_path, capsys, fields, word):
    spacefile = changed(tmp_path, **fields)
    if "card" not in fields:
        assert main(["me/depth", "--yes"], api=api, readme=readme, spacefile=spacefile) == 2
        assert word in capsys.readouterr().err
    else:
        with pytest.raises(UsageError, match=word):
            read(spacefile)
    assert not api.method_calls


def test_file_that_is_no_yaml_is_one_sentence(tmp_path):
    (tmp_path / "Spacefile").write_text("card: [")
    with pytest.raises(UsageError, match="cannot be read"):
        read(tmp_path / "Spacefile")
