"""Making venv/ and keeping it right, with a fake pip: first start, second start, breaks, changes, refusals."""

from __future__ import annotations

from pathlib import Path

import pytest

from installers.environment import Places, SetupFailed, ensure, is_current
from installers.host import GIB
from installers.stamp import Stamp, list_hash, requirement_lists
from installers.torch_choice import TORCH_VERSION
from tests.installers.fake import (
    CPU,
    CUDA,
    OFFICIAL,
    PYPROJECT,
    SMI_4090,
    FakeHost,
    make_fake_venv,
    put_torch,
    with_card,
    without_card,
)


def stamp_of(root: Path) -> Stamp:
    stamp = Stamp.read(root / "venv")
    assert stamp is not None
    return stamp


def test_first_start_without_card_installs_everything_and_the_second_nothing(host: FakeHost, root: Path) -> None:
    python = ensure(without_card(host), root)
    assert python == Places(root).python
    assert host.pip_requests[0] == ["--extra-index-url", f"{OFFICIAL}/cpu", CPU]
    assert host.pip_requests[1][0] == "-r"
    wanted = (root / ".athanor-setup" / "requirements.txt").read_text(encoding="utf-8").split()
    assert wanted == ["numpy>=1", "torch>=2.6", "tensorboardX"]
    limits = (root / ".athanor-setup" / "constraints.txt").read_text(encoding="utf-8").split()
    assert limits == [f"torch=={TORCH_VERSION}+cpu"]

    again = FakeHost(root)  # no network, no pip
    assert ensure(again, root) == python
    assert (again.commands, again.told) == ([], [])


def test_with_card_the_cuda_build_comes_and_xformers_after_a_call_on_the_card(host: FakeHost, root: Path) -> None:
    ensure(with_card(host), root)
    assert host.pip_requests[0] == ["--extra-index-url", f"{OFFICIAL}/cu130", CUDA]
    assert "xformers>=0.0.30" in host.pip_requests[2]
    assert not any("uninstall" in command for command in host.commands)
    assert (stamp_of(root).tag, stamp_of(root).retry) == ("cu130", False)


def test_xformers_that_fails_on_the_card_is_taken_out(host: FakeHost, root: Path) -> None:
    host.probe = (1, "no kernel image is available")
    ensure(with_card(host), root)
    assert host.commands[-1][-3:] == ["uninstall", "--yes", "xformers"]
    assert "does not work on this card" in host.text
    assert stamp_of(root).tag == "cu130"


def test_pip_sources_of_the_user_serve_where_the_index_is_out_of_reach(host: FakeHost, root: Path) -> None:
    ensure(with_card(host, online=False), root)
    assert host.pip_requests[0] == [CUDA]
    assert "cannot be reached" in host.text
    assert stamp_of(root).retry is False


def test_plain_index_serves_a_card_on_linux_because_its_build_has_cuda(host: FakeHost, root: Path) -> None:
    with_card(host, online=False).offers = {f"torch=={TORCH_VERSION}": (TORCH_VERSION, "13.0")}
    ensure(host, root)
    assert [request[0] for request in host.pip_requests[:2]] == [CUDA, f"torch=={TORCH_VERSION}"]
    assert stamp_of(root).torch_installed == TORCH_VERSION


def test_never_silently_a_cpu_build_with_a_card(host: FakeHost, root: Path) -> None:
    local = (f"{TORCH_VERSION}+cpu", None)  # a source of the user's whose build without CUDA wins over the plain one
    with_card(host, online=False).offers = {CPU: local, f"torch=={TORCH_VERSION}": local}
    for start in (1, 2):
        with pytest.raises(SetupFailed, match="ATHANOR_TORCH_INDEX"):
            ensure(host, root)
        assert len(host.asked) == start
        assert Stamp.read(root / "venv") is None


def test_card_put_in_later_keeps_the_old_build_loudly_while_offline(
    host: FakeHost, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure(without_card(host), root)
    monkeypatch.setattr("installers.environment.driver_mark", lambda host: "driver 580")
    card = FakeHost(root, smi=SMI_4090)
    ensure(card, root)
    assert card.asked == []
    assert "is kept until then" in card.text
    assert stamp_of(root).retry is True


def test_on_windows_the_plain_index_is_not_even_tried_for_a_card(host: FakeHost, root: Path) -> None:
    host.system = "Windows"
    with_card(host, online=False).offers = {f"torch=={TORCH_VERSION}": (TORCH_VERSION, None)}
    with pytest.raises(SetupFailed):
        ensure(host, root)
    assert [f"torch=={TORCH_VERSION}"] not in host.pip_requests


def test_cpu_build_after_asking_is_marked_told_at_each_start_and_mended(host: FakeHost, root: Path) -> None:
    with_card(host, online=False).offers = {CPU: (f"{TORCH_VERSION}+cpu", None)}
    host.yes = True
    ensure(host, root)
    assert stamp_of(root).retry is True

    offline = FakeHost(root, smi=SMI_4090)
    ensure(offline, root)
    assert "ATTENTION" in offline.text
    assert offline.commands == []

    online = with_card(FakeHost(root))
    ensure(online, root)
    assert online.pip_requests[0][-1] == CUDA
    assert (stamp_of(root).tag, stamp_of(root).retry) == ("cu130", False)
    quiet = FakeHost(root, smi=SMI_4090)
    ensure(quiet, root)
    assert (quiet.commands, quiet.told) == ([], [])


def test_choice_of_the_processor_by_hand_stays_without_nagging(host: FakeHost, root: Path) -> None:
    host.offer_torch("cpu", None)
    host.smi = SMI_4090
    ensure(host, root, asked="cpu")
    assert (stamp_of(root).asked, stamp_of(root).retry) == ("cpu", False)
    again = FakeHost(root, smi=SMI_4090)
    ensure(again, root)
    assert (again.commands, again.told) == ([], [])

    ensure(with_card(FakeHost(root)), root, asked="auto")
    assert (stamp_of(root).asked, stamp_of(root).tag) == ("", "cu130")


def test_old_driver_asks_and_says_what_to_do(host: FakeHost, root: Path) -> None:
    host.smi = "RTX 4090, 470.57, 24564, 8.9\n"
    with pytest.raises(SetupFailed, match=r"too old.*525.*setup --torch cpu"):
        ensure(host, root)


def test_broken_download_leaves_no_stamp_and_goes_on_without_repeating(host: FakeHost, root: Path) -> None:
    without_card(host).breaks = {"-r"}
    with pytest.raises(SetupFailed, match="Start again"):
        ensure(host, root)
    assert Stamp.read(root / "venv") is None

    again = without_card(FakeHost(root))
    ensure(again, root)
    assert [command for command in again.commands if "venv" in command] == []
    assert [request[0] for request in again.pip_requests] == ["-r"]  # PyTorch was complete


def test_broken_download_of_torch_does_not_fall_through_to_a_bigger_one(host: FakeHost, root: Path) -> None:
    without_card(host).breaks = {CPU}
    with pytest.raises(SetupFailed, match="a download that broke goes on"):
        ensure(host, root)
    assert len(host.pip_requests) == 1


def test_without_any_source_the_sentence_names_the_log(host: FakeHost, root: Path) -> None:
    with pytest.raises(SetupFailed, match=r"pip\.log"):
        ensure(host, root)
    assert [request[0] for request in host.pip_requests] == [CPU, f"torch=={TORCH_VERSION}"]


def test_environment_follows_pyproject(host: FakeHost, root: Path) -> None:
    ensure(without_card(host), root)
    changed = FakeHost(root)
    (root / "pyproject.toml").write_text(PYPROJECT.replace('"numpy>=1"', '"numpy>=2", "scipy"'), encoding="utf-8")
    ensure(changed, root)
    assert [request[0] for request in changed.pip_requests] == ["-r"]
    assert "scipy" in (root / ".athanor-setup" / "requirements.txt").read_text(encoding="utf-8")


def test_tests_packages_come_with_the_test_command_and_stay(host: FakeHost, root: Path) -> None:
    ensure(without_card(host), root)
    ensure(FakeHost(root), root, wanted=("app", "test"))
    assert set(stamp_of(root).requirements) == {"app", "test"}
    again = FakeHost(root)
    ensure(again, root)
    assert again.commands == []


def test_new_pytorch_in_the_table_is_installed(host: FakeHost, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ensure(without_card(host), root)
    for module in ("environment", "torch_install"):
        monkeypatch.setattr(f"installers.{module}.TORCH_VERSION", "2.99.0")
    newer = FakeHost(root)
    newer.online = {f"{OFFICIAL}/cpu"}
    newer.offers = {"torch==2.99.0+cpu": ("2.99.0+cpu", None)}
    ensure(newer, root)
    assert stamp_of(root).torch_installed == "2.99.0+cpu"


def test_environment_made_by_hand_is_adopted(host: FakeHost, root: Path) -> None:
    make_fake_venv(Places(root))
    put_torch(root / "venv", f"{TORCH_VERSION}+cpu", None)
    ensure(host, root)
    assert [command[:3] for command in host.commands if "venv" in command] == []
    assert [request[0] for request in host.pip_requests] == ["-r"]


@pytest.mark.parametrize("trouble", ["no python", "old python", "half made"])
def test_broken_environment_is_made_again(host: FakeHost, root: Path, trouble: str) -> None:
    places = Places(root)
    make_fake_venv(places, version="3.9.2" if trouble == "old python" else "")
    if trouble == "no python":
        places.python.unlink()
    if trouble == "half made":
        places.python.unlink()
        (root / "venv" / "leftover").mkdir()
    ensure(without_card(host), root)
    assert "making it again" in host.text
    assert not (root / "venv" / "leftover").exists()
    assert is_current(host, places, requirement_lists(root / "pyproject.toml"), ("app",), "")


def test_folder_that_is_no_environment_is_not_deleted(host: FakeHost, root: Path) -> None:
    (root / "venv").mkdir()
    (root / "venv" / "my notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(SetupFailed, match="Rename it"):
        ensure(host, root)
    assert (root / "venv" / "my notes.txt").read_text(encoding="utf-8") == "mine"


def test_half_unpacked_package_is_forgotten_so_that_pip_installs_it_anew(host: FakeHost, root: Path) -> None:
    make_fake_venv(Places(root))
    about = root / "venv" / "lib" / "python3.11" / "site-packages" / "numpy-2.0.dist-info"
    whole = about.with_name("pillow-11.0.dist-info")
    for folder in (about, whole):
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text("Name: x", encoding="utf-8")
    (whole / "RECORD").write_text("", encoding="utf-8")
    ensure(without_card(host), root)
    assert (about.exists(), whole.exists()) == (False, True)


def test_replaced_python_is_noticed(host: FakeHost, root: Path) -> None:
    ensure(without_card(host), root)
    Stamp(**{**vars(stamp_of(root)), "python": "/usr/bin/python3 1 1"}).write(root / "venv")
    again = FakeHost(root)
    ensure(again, root)
    assert [request[0] for request in again.pip_requests] == ["-r"]


def test_new_driver_chooses_anew_only_if_the_build_changes(
    host: FakeHost, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure(without_card(host), root)
    monkeypatch.setattr("installers.environment.driver_mark", lambda host: "driver 580")
    same = FakeHost(root)  # a driver, but no card
    ensure(same, root)
    assert same.commands == []
    assert stamp_of(root).driver == "driver 580"
    monkeypatch.setattr("installers.environment.driver_mark", lambda host: "driver 581")
    card = with_card(FakeHost(root))
    ensure(card, root)
    assert card.pip_requests[0][-1] == CUDA


def test_full_disk_is_seen_before_anything_is_downloaded(host: FakeHost, root: Path) -> None:
    with_card(host).free = {root: 5 * GIB}
    with pytest.raises(SetupFailed, match=r"5\.0 GB free.*12 GB"):
        ensure(host, root)
    assert host.commands == []


def test_python_without_venv_names_the_package(host: FakeHost, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("installers.environment.has_ensurepip", lambda: False)
    with pytest.raises(SetupFailed, match="-venv"):
        ensure(host, root)


def test_bad_place_is_refused_before_anything_happens(host: FakeHost, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("installers.environment.refuse_place", lambda *given: "not here")
    with pytest.raises(SetupFailed, match="not here"):
        ensure(host, root)
    assert not (root / "venv").exists()


def test_small_temp_folder_is_replaced_by_one_of_ours(host: FakeHost, root: Path) -> None:
    without_card(host).free = {host.temp_folder(): 1 * GIB}
    ensure(host, root)
    environ = host.environs[-1]
    assert environ["TMPDIR"] == str(root / ".athanor-setup" / "temp")


def test_users_pip_settings_win_and_foreign_python_paths_are_dropped(host: FakeHost, root: Path) -> None:
    without_card(host).environ.update(PIP_RESUME_RETRIES="3", PIP_INDEX_URL="https://mirror/simple", PYTHONPATH="/elsewhere")
    ensure(host, root)
    environ = host.environs[-1]
    assert (environ["PIP_RESUME_RETRIES"], environ["PIP_INDEX_URL"]) == ("3", "https://mirror/simple")
    assert "PYTHONPATH" not in environ


def test_stamp_that_cannot_be_read_counts_as_none(root: Path) -> None:
    venv = root / "venv"
    venv.mkdir()
    for text in ("", "{", "[]", '{"tag": "cpu"}'):
        (venv / "athanor-setup.json").write_text(text, encoding="utf-8")
        assert Stamp.read(venv) is None


def test_hash_of_a_list_does_not_depend_on_its_order() -> None:
    assert list_hash(["a", "b"]) == list_hash(["b", "a"]) != list_hash(["a"])
