import dataclasses
import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

import fakes
from adopted import make_foreign, make_tar, write_card
from landmark_onnx.cards.catalogue import CARDS_VARIABLE, cards
from landmark_onnx.cli.progress import Reporter
from landmark_onnx.errors import MissingExtraError
from landmark_onnx.hub.addresses import MIRROR_VARIABLE, OFFLINE_VARIABLE
from landmark_onnx.images.contact_sheet import write_image
from landmark_onnx.store.catalogue import exported_path, source_path
from landmark_onnx.store.status import stored_model
from pulled import NAME, PULL, TAR, background, hold, host_is
from servers import serving, slowly, status
from stored import touch


@pytest.fixture
def run(run):
    """Run a command in this process: exit code, standard output, standard error."""
    return lambda *arguments: dataclasses.astuple(run(*arguments))


@pytest.fixture
def mirror(monkeypatch):
    monkeypatch.delenv(OFFLINE_VARIABLE)
    monkeypatch.setenv("NO_PROXY", "*")
    with serving(TAR) as server:
        monkeypatch.setenv(MIRROR_VARIABLE, server.url("mirror/"))
        host_is(monkeypatch, server.url("host/"))
        yield server


@pytest.fixture
def exporter(monkeypatch):
    """An exporter that needs no Paddle."""

    def export_model(card, source, output, form=None, *, on_stage, check_parity=True, beside=None):
        on_stage("convert")
        fakes.make_retrieval(output, model_card=fakes.small_card(card.name))

    fake = types.ModuleType("landmark_onnx_export.convert")
    fake.export_model, fake.ExportForm = export_model, types.SimpleNamespace
    monkeypatch.setitem(sys.modules, "landmark_onnx_export.convert", fake)
    monkeypatch.setattr("landmark_onnx.hub.exporter.EXPORTERS", ())


@pytest.fixture
def own_cards(tmp_path, monkeypatch):
    folder = tmp_path / "cards"
    folder.mkdir()
    monkeypatch.setenv(CARDS_VARIABLE, str(folder))
    return folder


def test_list_shows_states_and_sizes(run):
    touch(source_path(fakes.CLS)).write_bytes(bytes(1_240_000))
    fakes.make_retrieval(exported_path(NAME))
    code, out, err = run("models", "list")
    assert (code, err) == (0, "")
    header, *lines = [line.split() for line in out.splitlines()]
    columns = ["model", "task", "state", "exported_MB", "source_MB", "download_MB", "licence", "proved"]
    assert header == columns
    assert [line[0] for line in lines] == list(cards())
    found = {line[0]: line[1:] for line in lines}
    licence = ["weights:", "not", "stated", "by", "the", "release", "never"]
    assert found[fakes.CLS] == ["cls", "source", "-", "1.2", "-", *licence]
    assert found[fakes.DET] == ["det", "nothing", "-", "-", "-", *licence]
    assert found[NAME][:2] == ["retrieval", "exported"]
    assert float(found[NAME][2]) == pytest.approx(exported_path(NAME).stat().st_size / 1e6, abs=0.05)


def test_list_as_json(run):
    path = fakes.make_retrieval(exported_path(NAME))
    code, out, _ = run("models", "list", "--json")
    found = {each["model"]: each for each in json.loads(out)}
    assert code == 0
    assert list(found) == list(cards())
    assert found[NAME] == stored_model(NAME).to_json()
    assert found[NAME]["path"] == str(path)


def test_list_has_own_cards(run, own_cards):
    facts = 'licence = "MIT; see there"\nproved = "2026-11-26"\n'
    write_card(own_cards / "mine.toml", more="[source]\nbytes = 2_500_000\n")
    (own_cards / "mine.toml").write_text(facts + (own_cards / "mine.toml").read_text())
    (line,) = [line.split() for line in run("models", "list")[1].splitlines() if line.startswith("mine ")]
    assert line == ["mine", "retrieval", "nothing", "-", "-", "2.5", "MIT", "2026-11-26"]
    (own_cards / "mine.toml").write_text("x")
    code, out, err = run("models", "list")
    assert (code, out) == (1, "")
    assert err.startswith(f"landmark-onnx: error: {own_cards / 'mine.toml'}: ")


def test_pull(run, mirror, exporter):
    code, out, err = run("models", "pull", NAME, f"{NAME}_index", "--json")
    assert (code, err) == (0, "")
    assert [(each["model"], each["state"]) for each in json.loads(out)] == [
        (NAME, "exported"),
        (f"{NAME}_index", "exported"),
    ]
    assert json.loads(out)[0]["source_bytes"] == len(TAR)


def test_a_pull_that_fails_stops_no_other(run, mirror, exporter):
    mirror.script = [status(404), status(404)]
    code, out, err = run("models", "pull", "none", NAME, "--json")
    first, second = json.loads(out)
    assert code == 1
    assert first["model"] == "none"
    assert first["error"].startswith("no model is called 'none'")
    assert second["model"] == NAME
    assert "answers 404" in second["error"]
    assert err.count("landmark-onnx: error: ") == 2
    assert "links may be dead" in err
    assert mirror.paths == [f"/mirror/host/{NAME}.tar", f"/host/{NAME}.tar"]


def test_pull_without_the_exporter_says_what_to_install(run, mirror, monkeypatch):
    monkeypatch.setitem(sys.modules, "paddle", None)
    code, _, err = run("models", "pull", NAME)
    assert code == 1
    missing = MissingExtraError("paddle, which exports it,", "export")
    assert f"its release is at {source_path(NAME)}; {missing}" in err


def test_pull_offline(run, mirror, exporter):
    code, _, err = run("models", "pull", NAME, "--offline")
    assert code == 1
    assert f"{NAME}: offline, and neither the model nor its release is in the store" in err
    assert not mirror.seen


def test_add_path_verify_rm(run, tmp_path):
    path = fakes.make_retrieval(tmp_path / "model.onnx")
    assert run("models", "path", NAME)[0] == 1
    code, out, _ = run("models", "add", path, "--json")
    assert (code, json.loads(out)[0]["state"]) == (0, "exported")
    assert run("models", "path", NAME) == (0, f"{exported_path(NAME)}\n", "")
    assert json.loads(run("models", "path", NAME, "--json")[1])[0]["path"] == str(exported_path(NAME))

    code, out, _ = run("models", "verify", NAME, "--json", "--provider", "cpu")
    assert (code, json.loads(out)[0]["model"]) == (0, NAME)
    assert stored_model(NAME).state == "verified"

    code, out, _ = run("models", "rm", NAME, "--json")
    assert code == 0
    assert {each["path"] for each in json.loads(out)} == {str(exported_path(NAME)), f"{exported_path(NAME)}.json"}
    assert stored_model(NAME).state == "nothing"


def test_the_command_verify_is_remembered_too(run):
    fakes.make_retrieval(exported_path(NAME))
    assert run("verify", NAME, "--provider", "cpu")[0] == 0
    assert stored_model(NAME).state == "verified"


def test_verify_of_a_damaged_model(run):
    path = fakes.make_retrieval(exported_path(NAME))
    path.write_bytes(path.read_bytes()[:-1])
    code, out, err = run("models", "verify", NAME)
    assert (code, out) == (1, "")
    assert "no seal at its end" in err
    assert stored_model(NAME).state == "damaged"


def test_add_a_release(run, tmp_path):
    path = make_tar(tmp_path / "any.tar")
    code, _, err = run("models", "add", path)
    assert code == 1
    assert "which model is it? Give its name" in err
    code, out, _ = run("models", "add", path, "--name", NAME)
    assert code == 0
    assert out.splitlines()[-1].split()[:3] == [NAME, "retrieval", "source"]


def test_add_a_model_of_others(run, tmp_path, own_cards):
    path = make_foreign(tmp_path / "theirs.onnx")
    write_image(tmp_path / "a.png", fakes.photo())
    assert run("models", "add", path, "--card", write_card(tmp_path / "card.toml"))[0] == 0
    code, out, _ = run("retrieval", "-m", "mine", tmp_path / "a.png", tmp_path / "a.png", "--format", "json")
    assert (code, json.loads(out)[0]["cosine"]) == (0, pytest.approx(1))


def test_a_card_for_one_run(run, tmp_path):
    path = make_foreign(tmp_path / "theirs.onnx")
    write_image(tmp_path / "a.png", fakes.photo())
    arguments = ("retrieval", "-m", path, tmp_path / "a.png", tmp_path / "a.png", "--format", "json")
    assert "no model card inside" in run(*arguments)[2]
    code, out, _ = run(*arguments, "--card", write_card(tmp_path / "card.toml"))
    assert (code, json.loads(out)[0]["cosine"]) == (0, pytest.approx(1))
    code, _, err = run(*arguments, "--card", write_card(tmp_path / "card.toml", task="cls"))
    assert code == 1
    assert "wanted retrieval" in err


@pytest.mark.parametrize(("command", "name"), [("retrieval", NAME), ("cls", fakes.CLS), ("det", fakes.DET)])
def test_offline_a_model_that_is_missing_is_an_error(command, name, run, mirror, tmp_path):
    write_image(tmp_path / "a.png", fakes.photo())
    images = [tmp_path / "a.png"] * (2 if command == "retrieval" else 1)
    code, _, err = run(command, "-m", name, "--offline", *images)
    assert code == 1
    assert f"{name}: offline" in err
    assert not mirror.seen


def test_a_model_is_pulled_when_it_is_first_used(run, mirror, exporter, tmp_path):
    write_image(tmp_path / "a.png", fakes.photo())
    arguments = ("retrieval", "-m", NAME, tmp_path / "a.png", tmp_path / "a.png", "--format", "json")
    code, out, err = run(*arguments)
    assert (code, json.loads(out)[0]["cosine"]) == (0, pytest.approx(1))
    assert err.startswith(f"landmark-onnx: {NAME} is not in the store yet: pulling it\n")
    code, _, err = run(*arguments, "-q")
    assert (code, err) == (0, "")
    assert len(mirror.seen) == 1


@pytest.mark.parametrize("into_store", [True, False])
def test_an_export_into_the_store_has_the_models_lock(into_store, run, exporter, tmp_path, monkeypatch):
    """Else prune would take its temporary files away."""
    busy = []

    def export_model(card, source, output, form, *, on_stage, check_parity, beside):
        entered = []
        background(lambda: hold(entered, card.name)).join(0.3)
        busy.append(not entered)
        report = types.SimpleNamespace(path=output, card=card, seconds=0.0, agreement=None, unused=())
        fakes.make_retrieval(output, model_card=fakes.small_card(card.name))
        return report

    monkeypatch.setattr(sys.modules["landmark_onnx_export.convert"], "export_model", export_model)
    monkeypatch.setattr("landmark_onnx_export.paddle.runtime.paddle_folder", lambda: None)
    where = [] if into_store else ["-o", tmp_path / "out.onnx"]
    assert run("export", NAME, "--from", make_tar(tmp_path / "x.tar"), *where)[0] == 0
    assert busy == [into_store]


def test_an_export_with_a_card_of_ones_own(run, exporter, tmp_path, monkeypatch):
    given = []

    def export_model(card, source, output, form, *, on_stage, check_parity, beside):
        given.append((card, beside))
        fakes.make_retrieval(output, model_card=card)
        return types.SimpleNamespace(path=output, card=card, seconds=0.0, agreement=None, unused=())

    monkeypatch.setattr(sys.modules["landmark_onnx_export.convert"], "export_model", export_model)
    monkeypatch.setattr("landmark_onnx_export.paddle.runtime.paddle_folder", lambda: None)
    card = write_card(tmp_path / "card.toml")
    release = make_tar(tmp_path / "x.tar")
    assert run("export", "--from", release, "--card", card)[0] == 0
    assert (given[0][0].summary, given[0][1]) == ("somebody's", tmp_path)
    assert exported_path("mine").exists()
    code, _, err = run("export", NAME, "--from", release, "--card", card)
    assert (code, "the card is called 'mine'" in err) == (1, True)


@pytest.mark.paddle
def test_an_export_of_a_release_that_was_added(run, exporter, tmp_path, monkeypatch):
    given = []

    def export_model(card, source, output, form, *, on_stage, check_parity, beside):
        given.append((card.name, source))
        fakes.make_retrieval(output)
        return types.SimpleNamespace(path=output, card=card, seconds=0.0, agreement=None, unused=())

    monkeypatch.setattr(sys.modules["landmark_onnx_export.convert"], "export_model", export_model)
    monkeypatch.setattr("landmark_onnx_export.paddle.runtime.paddle_module", lambda: None)
    code, _, err = run("export", NAME)
    assert (code, f"{NAME}: no release of it in the store: give --from PATH" in err) == (1, True)
    assert run("models", "add", make_tar(tmp_path / f"{NAME}.tar"))[0] == 0
    assert run("export", NAME)[0] == 0
    assert given == [(NAME, source_path(NAME))]
    data = bytearray(source_path(NAME).read_bytes())
    data[-1] ^= 1
    source_path(NAME).write_bytes(data)
    code, _, err = run("export", NAME)
    assert (code, "as at first sight" in err) == (1, True)


def test_a_model_is_replaced_and_removed_with_its_card(run, tmp_path, own_cards):
    card = write_card(tmp_path / "card.toml")
    assert run("models", "add", make_foreign(tmp_path / "a.onnx"), "--card", card)[0] == 0
    reduced = fakes.make_reduced(exported_path("mine"), dim=16)
    other = make_foreign(tmp_path / "b.onnx", seed=5)
    code, _, err = run("models", "add", other, "--card", card)
    assert (code, "another model is called mine; to replace it, " in err) == (1, True)
    code, _, err = run("models", "add", other, "--card", card, "--replace")
    assert (code, f"removed with the model it belonged to: {reduced}" in err) == (0, True)
    assert not reduced.exists()
    code, out, _ = run("models", "rm", "mine", "--card", "--json")
    assert (code, {Path(each["path"]).name for each in json.loads(out)}) == (0, {"mine.onnx", "mine.toml"})
    assert not list(own_cards.iterdir())


def test_a_stale_reduced_file_is_listed_so(run):
    fakes.make_reduced(fakes.make_retrieval(exported_path(NAME)))
    fakes.make_retrieval(exported_path(NAME), seed=5)
    code, out, err = run("models", "list")
    assert (code, f"{NAME}.int8: made from another model than" in err) == (0, True)
    assert re.search(rf"^{NAME}\.int8 +retrieval +stale", out, re.MULTILINE)


def test_rm_knows_its_names_before_it_begins(run):
    touch(source_path(NAME))
    code, _, err = run("models", "rm", NAME, "none")
    assert code == 1
    assert "no model is called 'none'" in err
    assert source_path(NAME).exists()


def test_rm_of_one_of_the_two(run):
    touch(source_path(NAME))
    fakes.make_retrieval(exported_path(NAME))
    run("models", "rm", NAME, "--no-source")
    assert stored_model(NAME).state == "source"
    fakes.make_retrieval(exported_path(NAME))
    run("models", "rm", NAME, "--no-exported")
    assert (stored_model(NAME).state, source_path(NAME).exists()) == ("exported", False)


def test_rm_forgets_a_hash_when_told(run, tmp_path):
    run("models", "add", make_tar(tmp_path / f"{NAME}.tar"))
    run("models", "rm", NAME)
    other = make_tar(tmp_path / f"{NAME}.tar", name="other")
    code, _, err = run("models", "add", other)
    assert code == 1
    assert f"to trust the new one: landmark-onnx models rm {NAME} --forget" in err
    assert run("models", "rm", NAME, "--forget")[0] == 0
    assert run("models", "add", other)[0] == 0


def test_prune(run):
    left = touch(source_path(NAME).with_name(f"{NAME}.tar.part"))
    code, out, _ = run("models", "prune", "--json")
    assert (code, json.loads(out)) == (0, [{"path": str(left), "bytes": 0}])
    assert run("models", "prune", "--json")[1] == "[]\n"


def test_sigterm_ends_a_pull_and_the_next_goes_on(mirror, tmp_path):
    mirror.script = [slowly(20)]
    program = PULL.rpartition("print")[0] + "from landmark_onnx.cli import main; main(['models', 'pull', sys.argv[2]])"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", program, str(tmp_path / "log"), NAME]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    part = source_path(NAME).with_name(f"{NAME}.tar.part")
    while not (part.is_file() and part.stat().st_size > 1000):
        assert process.poll() is None, process.communicate()
    process.terminate()
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    size = part.stat().st_size
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert NAME in done.stdout
    assert mirror.ranges == [None, f"bytes={size}-"]


class Terminal:
    """Standard error as a terminal sees it."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text
        return len(text)

    def flush(self):
        pass

    def isatty(self):
        return True


@pytest.mark.parametrize("bar", [True, False])
def test_a_download_has_a_bar_of_its_own(bar, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with Reporter(quiet=False, bar=bar) as report, report.lengthy("it takes long"):
        assert "it takes long" not in terminal.text
        report.stage("download")
        report.received("x: download", 1_000_000, 4_000_000)
        report.received("x: download", 2_000_000, 4_000_000)
        report._bar.refresh()
        assert "it takes long" in terminal.text
        assert "x: download 2.0 of 4.0 MB" in terminal.text
        assert "━" in terminal.text
        report.received("x: download", 2_000_000, None)
        report._bar.refresh()
        assert "x: download 2.0 MB" in terminal.text
        report.stage("convert")
        terminal.text = ""
        report._bar.refresh()
        assert "download" not in terminal.text
        assert "convert" in terminal.text
    assert bar == (report._bar is not None)
