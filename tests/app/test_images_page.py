"""The Images page: what a folder holds, what is left out and why, and captions by a tagger in its own process."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from PySide6.QtWidgets import QLabel

from app.editors import NumberEditor
from app.main_window import MainWindow
from app.pages.images import ImagesPage
from app.widgets.folder_card import FolderCard
from tests.app.conftest import Wait
from tests.captioners.tiny_tagger import save_model


def kohya_folder(parent: Path) -> Path:
    """Three pictures (one with a caption), one that is broken, two shapes."""
    folder = parent / "10_zorv shape"
    folder.mkdir(parents=True)
    for number, size in enumerate([(640, 640), (640, 640), (832, 512)]):
        Image.new("RGB", size, (200, number * 40, 30)).save(folder / f"{number}.png")
    (folder / "0.txt").write_text("zorv shape, red", encoding="utf-8")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing more")
    return folder


def texts_of(card: FolderCard) -> str:
    return "\n".join(label.text() for label in card.findChildren(QLabel) if not label.isHidden())


def images_page(window: MainWindow) -> ImagesPage:
    page = window.page("images")
    assert isinstance(page, ImagesPage)
    return page


def test_a_folder_says_what_is_in_it_and_what_is_left_out(window: MainWindow, awkward: Path, wait: Wait) -> None:
    page = images_page(window)
    assert not page.folders.invitation.isHidden()
    page.folders.add_paths([str(kohya_folder(awkward))])
    assert page.folders.invitation.isHidden()
    card = page.folders.cards[0]
    wait(lambda: card.report is not None)
    text = texts_of(card)
    assert "3 pictures × 10 repeats = 30 shown in an epoch" in text
    assert "2 pictures have no caption: 1.png, 2.png" in text
    assert "broken.png is left out" in text
    assert sum(page.folders.bucket_counts().values()) == 30
    assert len(page.folders.bucket_counts()) == 2
    wait(lambda: window.draft.disk.index is not None)


def test_a_picture_cut_short_is_found_by_the_second_look(window: MainWindow, tmp_path: Path, wait: Wait) -> None:
    folder = kohya_folder(tmp_path)
    whole = folder / "whole.png"
    Image.effect_noise((512, 512), 90).save(whole)
    (folder / "cut.png").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    page = images_page(window)
    page.folders.add_paths([str(folder)])
    card = page.folders.cards[0]
    wait(lambda: "cut.png is left out" in texts_of(card))
    assert "4 pictures × 10 repeats" in texts_of(card)


def test_repeats_and_the_switch_change_the_run(window: MainWindow, tmp_path: Path, wait: Wait) -> None:
    page = images_page(window)
    page.folders.add_paths([str(kohya_folder(tmp_path))])
    card = page.folders.cards[0]
    wait(lambda: window.draft.disk.plan is not None)
    assert window.draft.disk.plan is not None
    steps = window.draft.disk.plan.steps_per_epoch
    card.repeats.edit.setText("5")
    card.repeats.edited.emit(5)
    wait(lambda: window.draft.disk.plan is not None and window.draft.disk.plan.steps_per_epoch == steps // 2)
    card.switch.click()
    wait(lambda: any(problem.place == "images.folders" for problem in window.draft.errors))


def test_a_removed_folder_comes_back_by_undo(window: MainWindow, tmp_path: Path) -> None:
    page = images_page(window)
    page.folders.add_paths([str(tmp_path / "a"), str(kohya_folder(tmp_path))])
    count = len(page.folders.cards)
    page.folders.cards[-1].removed.emit(count)
    assert len(page.folders.cards) == count - 1
    window.undo()
    assert len(page.folders.cards) == count


def test_the_same_folder_is_listed_once(window: MainWindow, tmp_path: Path) -> None:
    page = images_page(window)
    folder = str(kohya_folder(tmp_path))
    page.folders.add_paths([folder, folder])
    page.folders.add_paths([folder])
    assert len(page.folders.cards) == 1


def test_a_tagger_writes_the_missing_captions(window: MainWindow, awkward: Path, wait: Wait) -> None:
    folder = kohya_folder(awkward)
    model = save_model(awkward / "model")
    page = images_page(window)
    page.folders.add_paths([str(folder)])
    wait(lambda: page.folders.picture_folders())
    page.tag_button.click()
    tagger = page.tagger
    assert not tagger.start_button.isEnabled()
    tagger.model.set_value(str(awkward))
    tagger.model.edited.emit(str(awkward))
    assert "model.onnx" in tagger.message.text()
    tagger.model.set_value(str(model))
    tagger.model.edited.emit(str(model))
    assert tagger.start_button.isEnabled()
    tagger.start_button.click()
    wait(lambda: tagger.banner.banner is not None and not tagger.is_running, 120)
    assert (folder / "1.txt").exists() and (folder / "2.txt").exists()
    assert (folder / "0.txt").read_text(encoding="utf-8") == "zorv shape, red"
    assert tagger.banner.banner is not None
    assert "written" in tagger.banner.banner.text.text()
    card = page.folders.cards[0]
    wait(lambda: card.report is not None and not card.report.captions_missing)


def test_a_tagger_goes_on_when_the_window_is_built_anew(window: MainWindow, tmp_path: Path, wait: Wait) -> None:
    folder = kohya_folder(tmp_path)
    page = images_page(window)
    page.folders.add_paths([str(folder)])
    wait(lambda: page.folders.picture_folders())
    page.tag_button.click()
    page.tagger.model.set_value(str(save_model(tmp_path / "model")))
    page.tagger.start()
    assert page.tagger.is_running
    window.rebuild()
    again = images_page(window).tagger
    assert again is not page.tagger and again.is_running and again.isVisible()
    wait(lambda: not again.is_running, 120)
    assert (folder / "1.txt").exists()
    assert window.context.tagger is None


def test_a_tagger_that_is_stopped_says_so(window: MainWindow, tmp_path: Path, wait: Wait) -> None:
    page = images_page(window)
    page.folders.add_paths([str(kohya_folder(tmp_path))])
    wait(lambda: page.folders.picture_folders())
    page.tag_button.click()
    tagger = page.tagger
    tagger.model.set_value(str(save_model(tmp_path / "model")))
    for presses in (1, 2):  # it is asked, then ended
        tagger.start()
        for _ in range(presses):
            tagger.stop_button.click()
        wait(lambda: not tagger.is_running, 120)
        assert tagger.banner.banner is not None and "topped" in tagger.banner.banner.text.text()
        assert tagger.start_button.isVisibleTo(page)
    assert window.context.news.marks == {}


def test_a_tagger_setting_that_is_wrong_is_named_in_words(window: MainWindow, tmp_path: Path, wait: Wait) -> None:
    page = images_page(window)
    page.folders.add_paths([str(kohya_folder(tmp_path))])
    wait(lambda: page.folders.picture_folders())
    page.tag_button.click()
    tagger = page.tagger
    tagger.model.set_value(str(save_model(tmp_path / "model")))
    assert tagger.settings is not None
    key, editor = next((key, one) for key, one in tagger.settings._editors.items() if isinstance(one, NumberEditor))
    editor.edit.setText("much")
    tagger.start()
    assert not tagger.is_running and tagger.banner.banner is not None
    text = tagger.banner.banner.text.text()
    assert "A number is needed" in text and key not in text


def test_cards_come_piece_by_piece_and_follow_undo_meanwhile(window: MainWindow, tmp_path: Path, wait: Wait) -> None:
    page = images_page(window)
    folders = [tmp_path / f"{number}" for number in range(8)]
    for folder in folders:
        folder.mkdir()
    page.folders.add_paths([str(folder) for folder in folders])
    assert len(page.folders._built) < 8, "all at once would hold the window up"
    window.draft.set("images.folders", page.folders.entries[:3])
    wait(lambda: len(page.folders._built) == 3)
    assert [card.name.text() for card in page.folders.cards] == ["0", "1", "2"]
    window.undo()
    wait(lambda: len(page.folders._built) == 8)
