"""Tools: forms from their descriptions, files recognised beside their fields, jobs one after the other in processes."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import QMimeData, QObject, QPoint, QPointF, Qt, QUrl
from PySide6.QtGui import QDropEvent, QGuiApplication
from PySide6.QtWidgets import QApplication, QMessageBox, QPushButton

from app import i18n
from app.main_window import MainWindow
from app.pages.tools import ToolsPage
from app.processes import Command, complaint, read_event, sentence
from app.tool_editors import EntriesEditor, FileEditor
from app.tool_form import ToolForm, free_name, job_subject, suggested_output
from app.tool_jobs import Job, Jobs, command_line
from app.widgets.metadata_view import MetadataView
from tests.app.conftest import Wait
from tests.app.test_metadata_view import write
from tests.tiny import save_tiny_file
from trainer.config.fields import settings_of
from trainer.messages import say
from trainer.models.safetensors_file import read_header
from trainer.tools import commands
from trainer.tools.catalog import TOOLS, LoraEntry

LORA = {"ss_base_model_version": "sd_v1", "ss_network_dim": "1", "ss_output_name": "rufus"}


@pytest.fixture
def page(window: MainWindow) -> ToolsPage:
    made = window.page("tools")
    assert isinstance(made, ToolsPage)
    return made


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    return write(tmp_path / "rufus.safetensors", LORA)


def fill(page: ToolsPage, tool: str, values: dict[str, Any]) -> ToolForm:
    """Choose a tool and type values, as if by hand."""
    page.choose(tool)
    form = page.whole_form()
    for key, value in values.items():
        editor = form.lines[key].editor
        editor.set_value(value)
        editor.edited.emit(editor.value())
    return form


# ---- the command line ----


def changed_value(kind: Any, info: Any, default: Any) -> Any:
    """Some other value of a setting than its default."""
    if info.choices:
        return next(choice.value for choice in info.choices if choice.value != default)
    if kind.annotation is bool:
        return not default
    if kind.annotation is int:
        return default + 3
    if kind.annotation is float:
        return 0.25
    if "LoraEntry" in str(kind.annotation):
        return (LoraEntry(path="/a b/-x.safetensors", weight=-0.5, unet=0.75), LoraEntry(path="/c", text_encoder=0.0))
    if str(kind.annotation).startswith("tuple"):
        return ("/x=1", "/-y z")
    return "/some where/file, 1.safetensors"


@pytest.mark.parametrize("name", TOOLS)
def test_the_command_line_says_what_the_form_says(name: str) -> None:
    tool = TOOLS[name]
    given = {key: changed_value(kind, info, kind.get_default()) for key, kind, info in settings_of(tool.settings)}
    settings = tool.settings(**given)
    chosen = commands._parser().parse_args([*command_line(name, tool.given, settings)[1:], "--stop-file", "x"])
    assert commands._settings(tool, chosen) == settings
    needed = {key: value for key, value in given.items() if key in tool.needed}
    plain = tool.settings(**needed)
    assert commands._settings(tool, commands._parser().parse_args(command_line(name, tool.given, plain)[1:])) == plain


@pytest.mark.parametrize("line", [b"", b"text", b"[1]", b"{", b"{1: 2}", b'"x"', b"\xff{", b"[" * 9000])
def test_what_is_no_event_is_none(line: bytes) -> None:
    assert read_event(line) is None


def test_sentences_come_as_data_or_as_text(app: QApplication) -> None:
    message = say("The disk of {folder} is full; nothing was replaced.", folder="X")
    assert sentence({"what": "old", "what_message": message.to_json()}, "what").startswith("The disk of X")
    for wrong in (
        {},
        {"values": 3},
        "no",
        {"template": "{a}", "values": {}},
        {"template": "{a.b}", "values": {"a": 1}},
    ):
        assert sentence({"what": "text", "what_message": wrong}, "what") in ("text", "{a}")
    assert complaint({"what": "A.", "todo": "B.", "problems": []}) == "A. B."
    assert complaint({"problems": [{"what": "one"}, {"what": "two"}], "what": "many"}) == "one\ntwo"


# ---- forms ----


@pytest.mark.parametrize("name", TOOLS)
def test_every_tool_has_its_form(page: ToolsPage, name: str) -> None:
    page.choose(name)
    form = page.whole_form()
    assert list(form.lines) == [key for key, _, _ in settings_of(TOOLS[name].settings)]
    assert form.settings() is None, "nothing is filled in"
    first = next(line for line in form.lines.values() if line.message.isVisibleTo(form))
    assert "missing" in first.message.text()
    assert page.jobs.jobs == []


def test_what_means_nothing_is_hidden(page: ToolsPage) -> None:
    form = fill(page, "resize", {"rule": "rank"})
    assert not form.lines["amount"].isVisibleTo(form)
    fill(page, "resize", {"rule": "frobenius"})
    assert form.lines["amount"].isVisibleTo(form)
    form = fill(page, "merge", {"mode": "difference", "model_c": "/c.safetensors"})
    assert not form.lines["amount_c"].isVisibleTo(form)


def test_a_file_is_recognised_beside_its_field(page: ToolsPage, lora: Path, wait: Wait) -> None:
    form = fill(page, "resize", {"lora": str(lora)})
    line = form.lines["lora"].editor
    assert isinstance(line, FileEditor)
    wait(lambda: line.facts.facts)
    assert "Stable Diffusion 1.x" in line.facts.text.text()
    assert line.facts.text.property("role") == "good"
    form = fill(page, "convert", {"model": str(lora)})
    line = form.lines["model"].editor
    assert isinstance(line, FileEditor)
    wait(lambda: line.facts.facts)
    assert "base model" in line.facts.text.text().lower()
    assert line.facts.text.property("role") == "problem"


def test_a_name_for_the_output_is_offered_until_one_is_typed(page: ToolsPage, lora: Path, wait: Wait) -> None:
    form = fill(page, "resize", {"lora": str(lora)})
    output = form.lines["output"].editor
    wait(lambda: output.value() == str(lora.with_name("rufus-r8.safetensors")))
    fill(page, "resize", {"rank": 4})
    wait(lambda: output.value() == str(lora.with_name("rufus-r4.safetensors")))
    fill(page, "resize", {"output": "/mine.safetensors", "rank": 2})
    assert output.value() == "/mine.safetensors"
    lora.with_name("rufus-r8.safetensors").write_bytes(b"")
    assert free_name(lora.with_name("rufus-r8.safetensors")).name == "rufus-r8-2.safetensors"


def test_a_wrong_file_is_framed_and_a_name_that_comes_is_missing_no_longer(page: ToolsPage, lora: Path, wait: Wait) -> None:
    form = fill(page, "resize", {})
    assert form.settings() is None
    assert {key for key, line in form.lines.items() if line.message.isVisibleTo(form)} == {"lora", "output"}
    fill(page, "resize", {"lora": str(lora)})
    field = form.lines["lora"].editor.field()
    wait(lambda: field.property("state") == "good")
    wait(lambda: not form.lines["output"].message.isVisibleTo(form))
    fill(page, "resize", {"lora": str(save_tiny_file(lora.parent, "model"))})
    wait(lambda: field.property("state") == "problem")
    fill(page, "resize", {"lora": ""})
    assert field.property("state") == "problem" and "missing" in form.lines["lora"].message.text()


def test_one_lora_is_not_merged_with_itself(page: ToolsPage, lora: Path) -> None:
    form = fill(page, "join", {"loras": [{"path": str(lora)}], "output": str(lora.parent / "new.safetensors")})
    assert form.settings() is None
    assert "At least two" in form.lines["loras"].message.text()
    fill(page, "join", {"loras": [{"path": str(lora)}, {"path": str(lora)}]})
    assert form.settings() is not None and not form.lines["loras"].message.text()


@pytest.mark.parametrize(
    ("tool", "values", "name"),
    [
        ("convert", {"model": "/m/a.ckpt", "precision": "fp16"}, "a-fp16.safetensors"),
        ("convert", {"model": "/m/a.b", "precision": "keep"}, "a.b.safetensors"),
        ("merge", {"model_a": "/m/a.ckpt", "model_b": "/n/b.safetensors"}, "a+b.safetensors"),
        ("bake", {"model": "/m/a.ckpt", "loras": [{"path": "/l/x.safetensors"}]}, "a+x.safetensors"),
        ("bake", {"model": "/m/a.ckpt", "loras": []}, None),
        ("join", {"loras": [{"path": "/l/x.safetensors"}, {"path": "/l/y.safetensors"}]}, "x+y.safetensors"),
        ("join", {"loras": [{"path": ""}]}, None),
        ("extract", {"base": "/m/a.ckpt", "tuned": "/m/t.ckpt"}, "t-lora.safetensors"),
        ("hash", {"files": ["/m/a.ckpt"]}, None),
    ],
)
def test_names_that_are_offered(tool: str, values: dict[str, Any], name: str | None) -> None:
    offered = suggested_output(tool, values)
    assert (offered.name if offered else None) == name


@pytest.mark.parametrize("typed", ["/", ".", "..", "~", "a\0b", "x" * 5000, "C:\\", "//", "http://x/y"])
def test_whatever_is_typed_for_a_file_disturbs_nothing(page: ToolsPage, wait: Wait, typed: str) -> None:
    for name in TOOLS:
        page.choose(name)
        form = page.whole_form()
        for line in form.lines.values():
            editor = line.editor
            if isinstance(editor, FileEditor):
                editor.take(typed)
                wait(lambda editor=editor: editor.facts.facts or not typed.strip())
            elif isinstance(editor, EntriesEditor):
                editor.take([typed, typed])
        wait(lambda form=form: not form._offers.busy)
        form.settings()


def test_what_was_typed_stays_when_the_language_changes(window: MainWindow, page: ToolsPage, lora: Path) -> None:
    fill(page, "join", {"loras": [{"path": str(lora), "weight": 0.5, "unet": 0.25}], "rank": 7})
    page.choose("hash")
    window.preferences.set("language", "zh_CN")
    window.rebuild()
    again = window.page("tools")
    assert isinstance(again, ToolsPage)
    assert again.tool_form is not None and again.tool_form.tool.name == "hash"
    again.choose("join")
    values = again.whole_form().values()
    assert values["rank"] == 7
    assert values["loras"][0] | {"text_encoder": None} == values["loras"][0]
    assert (values["loras"][0]["path"], values["loras"][0]["unet"]) == (str(lora), 0.25)


def drop(widget: Any, paths: list[Path]) -> None:
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    buttons, keys = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    widget.dropEvent(QDropEvent(QPointF(QPoint(5, 5)), Qt.DropAction.CopyAction, data, buttons, keys))


def test_files_are_dropped_on_the_page_and_on_lists(page: ToolsPage, lora: Path, wait: Wait) -> None:
    page.choose("extract")
    form = page.whole_form()
    drop(page, [lora, lora.with_name("second.safetensors")])
    wait(lambda: form.values()["base"])
    values = form.values()
    assert (values["base"], values["tuned"]) == (str(lora), str(lora.with_name("second.safetensors")))
    page.choose("hash")
    entries = page.whole_form().lines["files"].editor
    assert isinstance(entries, EntriesEditor)
    drop(entries, [lora, lora])
    assert entries.value() == [str(lora), str(lora)]
    entries.rows[0].removed.emit()
    assert entries.value() == [str(lora)]


def test_a_dropped_file_goes_where_its_kind_is_wanted(page: ToolsPage, lora: Path, tmp_path: Path, wait: Wait) -> None:
    models = [save_tiny_file(tmp_path, name) for name in ("a", "b 空格", "c")]
    page.choose("bake")
    form = page.whole_form()
    drop(page, [lora, models[0]])
    wait(lambda: form.values()["model"])
    assert form.values()["model"] == str(models[0])
    assert [entry["path"] for entry in form.values()["loras"]] == [str(lora)]
    drop(page, [models[1]])
    wait(lambda: form.values()["model"] == str(models[1]))  # nothing else can be meant
    page.choose("extract")
    form = page.whole_form()
    for model in models:
        drop(page, [model])
        wait(lambda model=model, form=form: str(model) in form.values().values())
    assert (form.values()["base"], form.values()["tuned"]) == (str(models[2]), str(models[1]))


@pytest.mark.parametrize(
    ("typed", "name"), [("extract lora", "extract"), ("utilities resize", "resize"), ("hashes", "hash")]
)
def test_a_tool_is_found_by_the_search(window: MainWindow, wait: Wait, typed: str, name: str) -> None:
    places = window.search.results(typed)
    assert f"tools.{name}" in places[:2]
    window.jump(f"tools.{name}")
    page = window.page("tools")
    assert isinstance(page, ToolsPage)
    wait(lambda: page.tool_form is not None and page.tool_form.tool.name == name)
    first = next(iter(page.whole_form().lines.values())).editor.field()
    wait(first.hasFocus)


# ---- jobs ----


def test_a_tool_runs_beside_the_window_and_says_what_came_out(page: ToolsPage, lora: Path, wait: Wait) -> None:
    fill(page, "metadata", {"file": str(lora), "set": ["modelspec.title=鲁弗斯"], "remove": ["ss_output_name"]})
    page.start_button.click()
    (job,) = page.jobs.jobs
    assert page.jobs.running is job
    wait(lambda: job.is_over)
    assert job.state == "done", job.report or job.text
    assert job.outputs == (lora,)
    metadata = read_header(lora).metadata
    assert metadata["modelspec.title"] == "鲁弗斯"
    assert "ss_output_name" not in metadata
    (card,) = page.cards()
    assert str(lora) in card.text.text()
    page.look(lora)
    viewer = page.window().findChild(MetadataView)
    assert viewer is not None
    viewer.close()
    card.away.click()
    assert page.jobs.jobs == []


def test_several_wait_for_each_other_and_a_failure_stops_none(page: ToolsPage, lora: Path, wait: Wait) -> None:
    gone = lora.with_name("gone.safetensors")
    for path in (gone, lora):
        fill(page, "hash", {"files": [str(path)]})
        page.start()
    first, second = page.jobs.jobs
    assert (first.state, second.state) == ("running", "waiting")
    wait(lambda: second.is_over)
    assert first.state == "failed" and str(gone) in first.text
    assert second.state == "done" and "sha256" in second.text.lower()
    newest, oldest = page.cards()
    assert newest.job is second
    assert oldest.text.property("role") == "problem"
    copy = [made for made in newest.buttons.findChildren(type(newest.stop)) if "Copy" in made.text()]
    copy[0].click()
    assert QGuiApplication.clipboard().text() == second.text


def test_a_failure_is_said_in_the_banner_until_it_is_dealt_with(
    page: ToolsPage, window: MainWindow, lora: Path, wait: Wait
) -> None:
    gone = lora.with_name("gone 空格.safetensors")
    fill(page, "hash", {"files": [str(gone)]})
    page.start()
    wait(lambda: page.jobs.jobs[0].is_over)
    banner = page.banner.banner
    assert banner is not None and banner.isVisibleTo(page) and banner.property("severity") == "problem"
    assert banner.text.text().startswith("Hashes: There is no file") and str(gone) in banner.text.text()
    window.rebuild()
    again = window.page("tools")
    assert isinstance(again, ToolsPage) and again.banner.banner is not None
    gone.write_bytes(lora.read_bytes())
    retry = next(made for made in again.banner.banner.findChildren(QPushButton) if made.text() == "Try again")
    retry.click()
    wait(lambda: again.jobs.jobs and again.jobs.jobs[0].is_over)
    (job,) = again.jobs.jobs
    assert job.state == "done" and again.banner.banner is None


def test_the_next_job_is_offered_a_name_that_the_last_one_does_not_take(
    page: ToolsPage, lora: Path, wait: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(self: Command, arguments: Any, **_: Any) -> None:
        self._process.start(sys.executable, ["-c", "import time; time.sleep(60)"])

    monkeypatch.setattr(Command, "start", start)
    form = fill(page, "resize", {"lora": str(lora)})
    output = form.lines["output"].editor
    for name in ("rufus-r8.safetensors", "rufus-r8-2.safetensors", "rufus-r8-3.safetensors"):
        wait(lambda name=name: output.value() == str(lora.with_name(name)))
        page.start()
    assert [Path(job.writes).name for job in page.jobs.jobs][-1] == "rufus-r8-3.safetensors"
    for job in reversed(list(page.jobs.jobs)):
        page.jobs.stop(job)
    wait(lambda: page.jobs.running is None)


def test_ctrl_enter_runs_the_tool_and_not_the_training(
    window: MainWindow, page: ToolsPage, lora: Path, wait: Wait
) -> None:
    fill(page, "hash", {"files": [str(lora)]})
    window._actions["start"].trigger()
    wait(lambda: page.jobs.jobs and page.jobs.jobs[0].is_over)
    assert window.page_key == "tools"
    window.open_page("images")
    window._actions["start"].trigger()
    wait(lambda: window.page_key == "review")  # nothing can be trained yet


def test_one_that_waits_can_be_taken_back(page: ToolsPage, lora: Path, wait: Wait) -> None:
    for _ in range(2):
        fill(page, "hash", {"files": [str(lora)]})
        page.start()
    page.jobs.stop(page.jobs.jobs[1])
    assert len(page.jobs.jobs) == 1
    wait(lambda: page.jobs.jobs[0].is_over)


PATIENT = """
import json, sys, time
from pathlib import Path
stop = Path(sys.argv[sys.argv.index("--stop-file") + 1])
print(json.dumps({"event": "progress", "done": 1, "total": 4, "text": "Working"}), flush=True)
print("a remark", flush=True)
while not stop.exists():
    time.sleep(0.02)
Path(sys.argv[1]).write_text("cleaned up")
print(json.dumps({"event": "failed", "stopped": True, "what": "Stopped. Nothing was written.", "todo": None}))
sys.exit(130)
"""


def run_patient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let `python -m trainer …` be a little program that waits to be stopped."""
    script = tmp_path / "patient.py"
    script.write_text(PATIENT, encoding="utf-8")

    def start(self: Command, arguments: Any, *, takes_stop_file: bool = False, program: str = "") -> None:
        self._takes_stop_file = takes_stop_file
        self._process.start(sys.executable, [str(script), *arguments, "--stop-file", str(self._stop_file)])

    monkeypatch.setattr(Command, "start", start)


def test_a_job_is_stopped_and_cleans_up(
    page: ToolsPage, tmp_path: Path, wait: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_patient(monkeypatch, tmp_path)
    job = Job(say("Convert"), "x", (str(tmp_path / "trace"),))
    page.jobs.add(job)
    wait(lambda: job.total == 4)
    (card,) = page.cards()
    assert "25 %" in card.text.text()
    card.stop.click()
    assert not card.stop.isEnabled()
    wait(lambda: job.is_over)
    assert (job.state, job.report) == ("stopped", "a remark")
    assert (tmp_path / "trace").read_text() == "cleaned up"


def test_a_job_ends_with_the_window(
    app: QApplication, tmp_path: Path, wait: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_patient(monkeypatch, tmp_path)
    owner = QObject()
    jobs = Jobs(owner)
    job = Job(say("Convert"), "x", (str(tmp_path / "trace"),))
    jobs.add(job)
    wait(lambda: job.total == 4)
    assert jobs._command is not None
    begun = time.monotonic()
    jobs._command.end()
    assert time.monotonic() - begun < 3
    assert (tmp_path / "trace").exists()
    assert job.state == "stopped"


def test_a_program_that_is_not_there_or_dies_is_a_sentence(
    app: QApplication, wait: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = Jobs()
    dies = Job(say("Convert"), "x", ("no-such-command",))
    jobs.add(dies)
    wait(lambda: dies.is_over)
    assert dies.state == "failed" and dies.text
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    never = Job(say("Convert"), "x", ("hash",))
    jobs.add(never)
    wait(lambda: never.is_over)
    assert never.state == "failed" and "code" in never.text


def test_the_result_of_a_conversion_becomes_the_base_model(page: ToolsPage, window: MainWindow, tmp_path: Path) -> None:
    page._use(tmp_path / "new.safetensors")
    assert window.draft.get("model.path") == str(tmp_path / "new.safetensors")
    assert window.page_key == "model"


def test_progress_lines_are_json_that_the_window_reads() -> None:
    line = json.dumps({"event": "progress", "done": 1, "total": 2, "text": "x"}).encode()
    assert read_event(line) == {"event": "progress", "done": 1, "total": 2, "text": "x"}


@pytest.mark.parametrize("stops", [False, True])
def test_a_window_with_a_tool_at_work_asks_before_it_closes(
    window: MainWindow, page: ToolsPage, tmp_path: Path, wait: Wait, monkeypatch: pytest.MonkeyPatch, stops: bool
) -> None:
    run_patient(monkeypatch, tmp_path)
    job = Job(say("Convert"), "x", (str(tmp_path / "trace"),))
    page.jobs.add(job)
    wait(lambda: job.total == 4)
    asked: list[str] = []

    def answer(box: QMessageBox) -> int:
        asked.append(box.text())
        next(made for made in box.buttons() if made.text().startswith("Stop") is stops).click()
        return 0

    monkeypatch.setattr(QMessageBox, "exec", answer)
    assert window.close() is stops
    assert "Convert is still at work" in asked[0]
    page.jobs.stop(job)
    wait(lambda: page.jobs.running is None)


@pytest.mark.parametrize("language", ["en", "zh_CN"])
def test_a_job_is_named_by_its_files(app: QApplication, language: str) -> None:
    i18n.set_language(language)
    values = {"model_a": "/m/a.ckpt", "output": "/m/new.safetensors"}
    assert job_subject(values) == "a.ckpt → new.safetensors"
    assert job_subject({"output": "/m/new.safetensors"}) == "→ new.safetensors"
