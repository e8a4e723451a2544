"""Is the folder that Athanor stands in a good place? Windows has some that end in trouble hours later."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePath, PureWindowsPath

from installers.words import say

# Windows refuses paths of 260 characters and more unless told otherwise; the longest file of the environment
# (a licence inside PyTorch's package) is 198 characters below the project's folder.
LONGEST_ROOT = 259 - 198


def refuse_place(root: Path, system: str, environ: Mapping[str, str]) -> str | None:
    """The sentence why the set-up must not go into `root`, or None."""
    if system == "Windows":
        return refuse_windows_place(PureWindowsPath(root), environ, long_paths_allowed())
    if not os.access(root, os.W_OK):
        return say("The folder {folder} cannot be written to. Move Athanor to a folder of yours.", folder=root)
    return None


def refuse_windows_place(root: PureWindowsPath, environ: Mapping[str, str], long_paths: bool) -> str | None:
    """The same for Windows, as a pure function so that it is tested everywhere."""
    windows = PureWindowsPath(environ.get("SystemRoot", r"C:\Windows"))
    if is_inside(root, windows):
        return say(
            "Athanor stands in {folder}, which belongs to Windows. Move it to a folder of its own, like D:\\Athanor.",
            folder=root,
        )
    for name in ("OneDrive", "OneDriveConsumer", "OneDriveCommercial"):
        synced = environ.get(name)
        if synced and is_inside(root, PureWindowsPath(synced)):
            return say(
                "Athanor stands in {folder}, which OneDrive copies to the internet: gigabytes of packages and models "
                "would go with it, and files would be locked in mid-run. Move it to a folder like D:\\Athanor.",
                folder=root,
            )
    if len(str(root)) > LONGEST_ROOT and not long_paths:
        return say(
            "The path {folder} is too long for Windows ({length} characters; {most} are possible here). Move Athanor "
            "nearer to the drive, like D:\\Athanor, or switch long paths on in Windows.",
            folder=root,
            length=len(str(root)),
            most=LONGEST_ROOT,
        )
    return None


def is_inside(path: PurePath, folder: PurePath) -> bool:
    return path == folder or folder in path.parents


def long_paths_allowed() -> bool:
    """Has Windows been told to allow paths over 260 characters? (True on other systems.)"""
    if os.name != "nt":
        return True
    import winreg

    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"SYSTEM\CurrentControlSet\Control\FileSystem") as key:
            return bool(winreg.QueryValueEx(key, "LongPathsEnabled")[0])
    except OSError:
        return False
