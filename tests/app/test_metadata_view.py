"""The metadata viewer: values that are JSON are opened, tags and tensors are tables, whatever a file holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QWidget

from app.header_tree import MOST_NODES, Node, all_as_json, count, filtered, opened, read_document, tag_counts
from app.widgets.metadata_view import MetadataView, NodeModel
from tests.app.conftest import Wait, close
from trainer.models.safetensors_file import header_bytes

TAGS = {"10_rufus cat": {"cat": 12, "sofa": 3}, "1_cat": {"cat": 40}}


def write(path: Path, metadata: dict[str, str], names: int = 2) -> Path:
    """A LoRA's header with as many tensors of one number."""
    parts = ("lora_down.weight", "lora_up.weight")
    tensors = {f"lora_unet_x_{n // 2}.{parts[n % 2]}": ("F16", (1, 1)) for n in range(names)}
    path.write_bytes(header_bytes(tensors, metadata) + b"\0\0" * names)
    return path


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    metadata = {"ss_tag_frequency": json.dumps(TAGS), "ss_network_dim": "8", "modelspec.title": "鲁弗斯"}
    return write(tmp_path / "rufus.safetensors", metadata)


@pytest.fixture
def parent(app: QApplication) -> QWidget:
    return QWidget()


def names(node: Node) -> list[str]:
    return [child.name for child in node.children]


def test_values_that_are_json_are_opened_and_tags_counted(lora: Path) -> None:
    document = read_document(lora)
    assert names(document.root) == ["modelspec.title", "ss_network_dim", "ss_tag_frequency"]
    tags = document.root.children[2]
    assert names(tags) == ["10_rufus cat", "1_cat"]
    assert [child.line for child in tags.children[0].children] == ["12", "3"]
    assert document.tags == (("cat", 40, "1_cat"), ("cat", 12, "10_rufus cat"), ("sofa", 3, "10_rufus cat"))
    assert document.tensors[0][:3] == ("lora_unet_x_0.lora_down.weight", (1, 1), "F16")


def test_a_short_list_stays_one_line(tmp_path: Path) -> None:
    values = {"size": "[512, 768]", "long": json.dumps(list(range(9))), "mixed": "[1, [2]]"}
    root = read_document(write(tmp_path / "lists.safetensors", values)).root
    assert [(node.name, len(node.children)) for node in root.children] == [("long", 9), ("mixed", 2), ("size", 0)]
    assert root.children[2].line == "[512, 768]"


@pytest.mark.parametrize("text", ["[1, 2", "plain", "{", '"{}"', "[" * 5000, "", "12"])
def test_a_value_that_is_no_table_stays_as_it_is(text: str) -> None:
    assert opened(text) == text


@pytest.mark.parametrize("text", ["", "[]", "[1]", '{"a": 1}', '{"a": {"b": "c", "d": true}}', "no"])
def test_tags_of_another_shape_are_none(text: str) -> None:
    assert tag_counts(text) == ()


def test_a_monstrous_value_stays_one_line(tmp_path: Path) -> None:
    huge = json.dumps({"a": {str(number): number for number in range(MOST_NODES + 10)}})
    document = read_document(
        write(tmp_path / "huge.safetensors", {"huge": huge, "also": "[" + "[]," * 300_000 + "[]]"})
    )
    assert count(document.root) < MOST_NODES
    assert document.root.children[0].line.startswith("[[],[]")


def test_the_filter_keeps_what_has_the_text_and_its_containers(lora: Path) -> None:
    root = read_document(lora).root
    found = filtered(root, "SOFA")
    assert names(found) == ["ss_tag_frequency"]
    assert names(found.children[0]) == ["10_rufus cat"]
    assert names(found.children[0].children[0]) == ["sofa"]
    assert filtered(root, "nothing like it").children == []
    assert count(filtered(root, "")) == count(root)


def test_the_tree_agrees_with_qt(app: QApplication, lora: Path, parent: QWidget, qtmodeltester) -> None:  # type: ignore[no-untyped-def]
    qtmodeltester.check(NodeModel(read_document(lora).root, parent))


def test_it_is_shown_searched_sorted_and_copied(app: QApplication, lora: Path, parent: QWidget, wait: Wait) -> None:
    view = MetadataView(parent, lora)
    view.show()
    wait(lambda: view.tree_model.rowCount() == 3)
    assert [view.tabs.tabText(n) for n in range(3)] == ["Metadata", "Tags (3)", "Tensors (2)"]
    tags = view.tables[0]
    view.search.setText("sofa")
    wait(lambda: tags.model.rowCount() == 1)
    assert view.tree_model.rowCount() == 1
    view.search.setText("")
    wait(lambda: tags.model.rowCount() == 3)
    view._sort(tags, 0)
    view._sort(tags, 0)
    wait(lambda: tags.model.rows[0][0] == "sofa")
    tags.view.selectRow(0)
    view.tabs.setCurrentIndex(1)
    tags.view.setFocus()
    QTest.keyClick(tags.view, Qt.Key.Key_C, Qt.KeyboardModifier.ControlModifier)
    assert QGuiApplication.clipboard().text() == "sofa\t3\t10_rufus cat"
    view.tree.setCurrentIndex(view.tree_model.index(0, 0))
    assert view._tree_text() == "鲁弗斯"
    view._copy_all()
    assert json.loads(QGuiApplication.clipboard().text())["ss_tag_frequency"] == TAGS
    close(view)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x80\x02cos\nsystem\n.", b"\xff" * 64])
def test_a_file_that_says_nothing_is_explained(
    app: QApplication, tmp_path: Path, parent: QWidget, wait: Wait, content: bytes
) -> None:
    file = tmp_path / "broken.safetensors"
    file.write_bytes(content)
    for path in (file, tmp_path / "gone.safetensors"):
        view = MetadataView(parent, path)
        wait(lambda view=view: view.document is not None)
        assert view.summary.text()
        assert view.summary.property("role") == "problem"
        assert not view.copy_all.isEnabled()
        close(view)


def test_a_diffusers_folder_shows_its_configs(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}', encoding="utf-8")
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(
        '{"prediction_type": "v_prediction"}', encoding="utf-8"
    )
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text("{broken", encoding="utf-8")
    document = read_document(tmp_path)
    assert names(document.root) == ["model_index.json", "scheduler/scheduler_config.json"]


def test_a_folder_says_which_of_its_files_says_what(tmp_path: Path) -> None:
    for part in ("unet", "vae"):
        (tmp_path / part).mkdir()
        write(tmp_path / part / "diffusion_pytorch_model.safetensors", {"format": "pt", "part": part})
    document = read_document(tmp_path)
    places = [f"{part}/diffusion_pytorch_model.safetensors" for part in ("unet", "vae")]
    assert names(document.root) == places
    assert [child.name for child in document.root.children[0].children] == ["format", "part"]
    assert {place: said["part"] for place, said in json.loads(all_as_json(document.root)).items()} == dict(
        zip(places, ("unet", "vae"), strict=True)
    )
