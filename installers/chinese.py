"""The set-up's sentences in Chinese, by their English template; a test says which are missing."""

from __future__ import annotations

SENTENCES = {
    "doctor takes only --json.": "doctor 只接受 --json。",
    "Failed: {names}": "未通过：{names}",
    "Stopped. The next start goes on where this one was.": "已停止。下次启动会从这里继续。",
    "setup knows --fresh and --torch, not “{word}”.": "setup 只接受 --fresh 和 --torch，不认识“{word}”。",
    "--torch takes auto, cpu or a CUDA build like cu130, not “{word}”.": (
        "--torch 后面写 auto、cpu 或 CUDA 版本（例如 cu130），不能写“{word}”。"
    ),
    "{free} GB free": "剩余 {free} GB",
    "{size} GB": "{size} GB",
    "{size} GB of memory and page file together": "内存与页面文件共 {size} GB",
    "Visual C++ runtime": "Visual C++ 运行库",
    "Card and driver": "显卡与驱动",
    "{cards}, driver {driver}, PyTorch build {build}": "{cards}，驱动 {driver}，PyTorch 版本 {build}",
    "Mend it with: setup --fresh (what pip has kept is not downloaded twice).": (
        "请带参数 setup --fresh 启动一次来修复（pip 已缓存的不会重复下载）。"
    ),
    "not used: PyTorch's own attention is as good": "未使用：PyTorch 自带的注意力同样好用",
    "Chinese will show as empty boxes. On Debian and Ubuntu: sudo apt install fonts-noto-cjk": (
        "中文会显示成方框。Debian 和 Ubuntu：sudo apt install fonts-noto-cjk"
    ),
    "Display": "显示器",
    "Python": "Python",
    "Environment": "运行环境",
    "not finished, or not made by this launcher": "尚未装完，或不是由本启动器创建",
    "60 GB are advised for models, pictures and caches.": "建议留出 60 GB 存放模型、图片和缓存。",
    "Disk": "磁盘",
    "Memory": "内存",
    "Loading a model may end with error 1455. Let Windows manage the page file's size (System > About > Advanced system "
    "settings > Performance > Advanced > Virtual memory).": (
        "加载模型时可能出现错误 1455。请让 Windows 自动管理页面文件大小"
        "（系统 > 关于 > 高级系统设置 > 性能 > 高级 > 虚拟内存）。"
    ),
    "Page file": "页面文件",
    "missing": "缺少",
    "Install it from {page}": "请从 {page} 安装",
    "This card has no 8-bit optimisers and no bf16: take AdamW and fp16.": (
        "这块显卡不支持 8 位优化器和 bf16：请用 AdamW 和 fp16。"
    ),
    "{version}, 8-bit AdamW works on {device}": "{version}，8 位 AdamW 可在 {device} 上使用",
    "On Debian and Ubuntu: sudo apt install libegl1 libgl1 libxkbcommon0 libdbus-1-3 libfontconfig1": (
        "Debian 和 Ubuntu：sudo apt install libegl1 libgl1 libxkbcommon0 libdbus-1-3 libfontconfig1"
    ),
    "Window (Qt)": "窗口 (Qt)",
    "Fonts": "字体",
    "no font for Chinese": "没有中文字体",
    "The window needs one; demo, train and test work without.": "窗口需要显示器；demo、train 和 test 不需要。",
    "On Debian and Ubuntu: sudo apt install libxcb-cursor0": "Debian 和 Ubuntu：sudo apt install libxcb-cursor0",
    "All that a training needs is here.": "训练所需的一切都已就绪。",
    "Nothing here stops Athanor; what is marked [ !] is worth reading.": (
        "没有会妨碍 Athanor 的问题；标有 [ !] 的内容值得一看。"
    ),
    "What is marked [XX] has to be mended first.": "标有 [XX] 的问题需要先解决。",
    "Folder": "文件夹",
    "not made yet": "尚未创建",
    "The first start makes it; that takes a few minutes.": "首次启动时会创建，需要几分钟。",
    "broken: its Python does not start": "已损坏：其中的 Python 无法启动",
    "The next start makes it again.": "下次启动会重新创建。",
    "The next start goes on with it.": "下次启动会继续安装。",
    "older than pyproject.toml": "比 pyproject.toml 旧",
    "The next start brings it up to date.": "下次启动会更新。",
    "Athanor itself needs 8 GB. Make room or move it to another disk.": (
        "Athanor 本身需要 8 GB。请清理磁盘，或把它移到别的磁盘。"
    ),
    "the system does not say how much there is": "系统没有给出容量",
    "A full-size model will hardly load; 16 GB are advised.": "完整大小的模型很难加载；建议 16 GB。",
    "16 GB are advised; close other programs while training.": "建议 16 GB；训练时请关闭其他程序。",
    "here": "已安装",
    "This card has no bf16: take fp16.": "这块显卡不支持 bf16：请用 fp16。",
    "The card calculates wrongly: update its driver; check overclocking.": (
        "显卡计算结果有误：请更新驱动，并检查是否超频。"
    ),
    "PyTorch sees no card: restart the computer, then update the driver.": (
        "PyTorch 找不到显卡：请重启电脑，仍然不行就更新驱动。"
    ),
    "{text}: it does not see the card": "{text}：找不到显卡",
    "an 8-bit step did nothing": "8 位优化器没有生效",
    "8-bit optimisers will not work; all others do.": "8 位优化器不能使用；其他优化器都可以。",
    "Chinese can be shown": "可以显示中文",
    "none (neither DISPLAY nor WAYLAND_DISPLAY is set)": "没有（DISPLAY 和 WAYLAND_DISPLAY 都未设置）",
    "the library libxcb-cursor is missing: the window cannot open": "缺少 libxcb-cursor 库：窗口无法打开",
    "Another program holds the card's memory: close it (a WebUI?).": "其他程序占用了显存：请关闭它（例如 WebUI）。",
    "Packages could not be downloaded or installed; the lines above and {log} say why. Start again: what is already here "
    "is not downloaded twice. Without a good connection, set a mirror first, for example: "
    "pip config set global.index-url ADDRESS": (
        "有软件包未能下载或安装，原因见上面的输出和 {log}。请重新启动：已下载的不会重复下载。"
        "如果网络不好，请先设置镜像，例如：pip config set global.index-url 镜像地址"
    ),
    "ATTENTION: PyTorch is here without CUDA, so training runs on the processor. {why}": (
        "注意：当前的 PyTorch 不带 CUDA，训练只能用 CPU。{why}"
    ),
    "Setting up Athanor in {folder}. It can be stopped at any time and goes on where it was.": (
        "正在 {folder} 安装 Athanor 的运行环境。可以随时中断，下次会接着安装。"
    ),
    "Athanor is set up.": "Athanor 已安装完成。",
    "The environment in {folder} is broken or half made; making it again.": (
        "{folder} 中的运行环境已损坏或不完整，正在重新创建。"
    ),
    "The disk of {folder} has {free} GB free, and the set-up needs {needed} GB. Make room or move Athanor to another "
    "disk.": ("{folder} 所在磁盘只剩 {free} GB，安装需要 {needed} GB。请清理磁盘，或把 Athanor 移到别的磁盘。"),
    "This Python ({python}) cannot make environments: its venv part is missing. On Debian and Ubuntu: "
    "sudo apt install python{version}-venv": (
        "这个 Python（{python}）缺少 venv 组件，无法创建运行环境。Debian 和 Ubuntu：sudo apt install python{version}-venv"
    ),
    "{folder} could not be removed ({reason}). Close Athanor's windows and runs, then start again.": (
        "无法删除 {folder}（{reason}）。请关闭 Athanor 的窗口和正在进行的训练，然后重新启动。"
    ),
    "{file} could not be read or written ({reason}). Check its rights and the free space, then start again.": (
        "无法读写 {file}（{reason}）。请检查权限和剩余空间，然后重新启动。"
    ),
    "The environment in {folder} could not be made; the lines above say why.": (
        "无法在 {folder} 创建运行环境，原因见上面的输出。"
    ),
    "{folder} is there but is no Python environment. Rename it and start again; Athanor needs that name.": (
        "{folder} 已存在，但不是 Python 运行环境。请把它改名后重新启动；Athanor 要用这个名字。"
    ),
    "Another window is setting up Athanor; waiting for it.": "另一个窗口正在安装 Athanor，请稍候。",
    "The folder {folder} cannot be written to. Move Athanor to a folder of yours.": (
        "无法写入文件夹 {folder}。请把 Athanor 移到您自己的文件夹。"
    ),
    "Athanor stands in {folder}, which belongs to Windows. Move it to a folder of its own, like D:\\Athanor.": (
        "Athanor 位于 {folder}，那是 Windows 的系统文件夹。请把它移到单独的文件夹，例如 D:\\Athanor。"
    ),
    "The path {folder} is too long for Windows ({length} characters; {most} are possible here). Move Athanor nearer to "
    "the drive, like D:\\Athanor, or switch long paths on in Windows.": (
        "路径 {folder} 对 Windows 来说太长（{length} 个字符，这里最多 {most} 个）。请把 Athanor 移到靠近盘符的位置，"
        "例如 D:\\Athanor，或在 Windows 中启用长路径。"
    ),
    "Athanor stands in {folder}, which OneDrive copies to the internet: gigabytes of packages and models would go with "
    "it, and files would be locked in mid-run. Move it to a folder like D:\\Athanor.": (
        "Athanor 位于 {folder}，OneDrive 会把它同步到网上：几 GB 的软件包和模型都会被上传，训练中的文件还会被锁住。"
        "请移到 D:\\Athanor 这样的文件夹。"
    ),
    "NVIDIA's driver {driver} is too old for this card's PyTorch: it needs {needed} or newer. Update it from {page}, "
    "restart the computer and start again.": (
        "NVIDIA 驱动 {driver} 太旧：这块显卡的 PyTorch 需要 {needed} 或更新的版本。请从 {page} 更新驱动，重启电脑后再启动。"
    ),
    "There is an NVIDIA card ({card}), but its driver is not installed (nvidia-smi is missing). Install it from {page} "
    "(on Linux: your system's package), restart the computer and start again.": (
        "电脑里有 NVIDIA 显卡（{card}），但没有安装驱动（找不到 nvidia-smi）。请从 {page} 安装（Linux 用系统的软件包），"
        "重启电脑后再启动。"
    ),
    "NVIDIA's driver does not answer: {complaint}. After a driver update a restart of the computer usually mends this; "
    "else install the driver again from {page}.": (
        "NVIDIA 驱动没有响应：{complaint}。如果刚更新过驱动，重启电脑通常就好；否则请从 {page} 重新安装驱动。"
    ),
    "{card} (compute capability {capability}) is not supported by the PyTorch build chosen here (it starts at {lowest}, "
    "and a mix of old and new cards may need one of them left out): it will not be used.": (
        "{card}（计算能力 {capability}）不受这里选用的 PyTorch 支持（最低 {lowest}；新旧显卡混用时可能要舍弃其中一块），"
        "不会使用它。"
    ),
    "No NVIDIA card was found: everything will run on the processor, slowly: fine for the demo, days for a real model.": (
        "没有找到 NVIDIA 显卡：一切都在 CPU 上运行，很慢：演示没问题，真正的模型要训练好几天。"
    ),
    "Apple's graphics are not used for training yet: everything runs on the processor, slowly.": (
        "目前还不能用 Apple 的图形处理器训练：一切都在 CPU 上运行，很慢。"
    ),
    "The AMD card {card} cannot be used: training runs on NVIDIA cards (CUDA). Everything works on the processor, but "
    "slowly: fine for the demo, days for a real model.": (
        "AMD 显卡 {card} 不能使用：训练需要 NVIDIA 显卡（CUDA）。CPU 也能完成一切，但很慢：演示没问题，真正的模型要好几天。"
    ),
    "The Intel graphics {card} cannot be used: training runs on NVIDIA cards (CUDA). Everything works on the processor, "
    "but slowly: fine for the demo, days for a real model.": (
        "Intel 显卡 {card} 不能使用：训练需要 NVIDIA 显卡（CUDA）。CPU 也能完成一切，但很慢："
        "演示没问题，真正的模型要好几天。"
    ),
    "PyTorch no longer makes packages for Macs with Intel processors; the set-up will probably fail.": (
        "PyTorch 已不再提供 Intel 处理器 Mac 的安装包；安装很可能失败。"
    ),
    "PyTorch's build was chosen by hand: {build}.": "PyTorch 版本由用户指定：{build}。",
    "PyTorch's own index ({index}) cannot be reached or lacks this build: trying your pip's sources.": (
        "无法连接 PyTorch 官方源（{index}），或其中没有这个版本：改用您的 pip 源。"
    ),
    "PyTorch for this NVIDIA card ({tag}) is not to be had: {index} cannot be reached, and your pip's sources do not "
    "offer it. Try later, or give a mirror of PyTorch's index in ATHANOR_TORCH_INDEX (an address to which /{tag} is "
    "added).": (
        "无法取得适合这块 NVIDIA 显卡的 PyTorch（{tag}）：连不上 {index}，您的 pip 源里也没有。请稍后再试，"
        "或用环境变量 ATHANOR_TORCH_INDEX 指定 PyTorch 源的镜像地址（程序会在后面加上 /{tag}）。"
    ),
    "PyTorch {version} could not be downloaded or installed; the lines above and {log} say why. Start again: a download "
    "that broke goes on. No source offering it usually means no connection, or a Python that is too new.": (
        "PyTorch {version} 未能下载或安装，原因见上面的输出和 {log}。请重新启动：中断的下载会继续。"
        "如果所有源都没有它，通常是没有网络，或 Python 版本太新。"
    ),
    "Taking the plain index's build; it brings CUDA's libraries, several GB that are not needed here.": (
        "改用普通源里的版本；它会带上几 GB 这里用不到的 CUDA 库。"
    ),
    "The PyTorch that is here already is kept until then; training runs on the processor.": (
        "在此之前保留已有的 PyTorch；训练在 CPU 上运行。"
    ),
    "To use the processor only, start once with: setup --torch cpu": "如果只想用 CPU，请带参数 setup --torch cpu 启动一次",
    "xformers is not to be had for this PyTorch; PyTorch's own attention is used, which is as good.": (
        "没有适合这个 PyTorch 的 xformers；改用 PyTorch 自带的注意力，同样好用。"
    ),
    "xformers does not work on this card and is taken out again; PyTorch's own attention is used.": (
        "xformers 在这块显卡上不能用，已卸载；改用 PyTorch 自带的注意力。"
    ),
    "Install PyTorch for the processor for now (training will be very slow), and look again at the next start?": (
        "是否先安装 CPU 版 PyTorch（训练会非常慢），下次启动时再试？"
    ),
}
