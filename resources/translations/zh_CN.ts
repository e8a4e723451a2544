<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE TS>
<TS version="2.1" language="zh_CN" sourcelanguage="en">
 <context>
  <name>app</name>
  <message>
   <source>1 problem</source>
   <translation>1 个问题</translation>
  </message>
  <message>
   <source>1 thing to choose</source>
   <translation>还有 1 项要选</translation>
  </message>
  <message>
   <source>1 warning</source>
   <translation>1 条提醒</translation>
  </message>
  <message>
   <source>16 to 32 is a good rank for a character or a thing. Over 128 there is no gain: the file grows and it overfits sooner.</source>
   <translation>角色或物品用 16 到 32 的秩就很好。超过 128 没有好处：文件变大，还更容易过拟合。</translation>
  </message>
  <message>
   <source>20 to 30 steps and CFG 7 show enough. The same seed gives the same noise at every step: only the LoRA differs.</source>
   <translation>20 到 30 步、CFG 7 就足够看清。同一种子在每一步用同样的噪声：不同的只有 LoRA。</translation>
  </message>
  <message>
   <source>A LoRA of rank 32 for SD 1.5 is about 36 MB in fp16.</source>
   <translation>SD 1.5 的 LoRA，秩 32、fp16 时约 36 MB。</translation>
  </message>
  <message>
   <source>A LoRA of rank {rank} is trained on {model}; {parts}.</source>
   <translation>在 {model} 上训练一个秩为 {rank} 的 LoRA；{parts}。</translation>
  </message>
  <message>
   <source>A few bad pictures hurt more than many good ones help: look at all of them.</source>
   <translation>几张差图的害处，大过许多好图的益处：请每一张都看一遍。</translation>
  </message>
  <message>
   <source>A file…</source>
   <translation>文件…</translation>
  </message>
  <message>
   <source>A folder…</source>
   <translation>文件夹…</translation>
  </message>
  <message>
   <source>A noise offset of 0.03 to 0.1 gives darker darks and brighter brights. Leave it at 0 if you don't need them.</source>
   <translation>噪声偏移 0.03 到 0.1 能让暗处更暗、亮处更亮。不需要就保持 0。</translation>
  </message>
  <message>
   <source>A number is needed here.</source>
   <translation>这里需要一个数字。</translation>
  </message>
  <message>
   <source>A part of the window failed ({reason}).</source>
   <translation>窗口的一部分出错了（{reason}）。</translation>
  </message>
  <message>
   <source>A plain folder: the file goes right into it.</source>
   <translation>普通文件夹：文件直接放进去。</translation>
  </message>
  <message>
   <source>A rate of 1 is far too high for {optimizer}.</source>
   <translation>学习率 1 对 {optimizer} 来说高得太多。</translation>
  </message>
  <message>
   <source>ATHANOR_HOME moves the first one, and with it the others.</source>
   <translation>环境变量 ATHANOR_HOME 可以移动第一个，其余的跟着走。</translation>
  </message>
  <message>
   <source>About 20 pictures for a character (15 to 40): varied angles, poses and backgrounds, sharp. A style: 50 to 200.</source>
   <translation>角色大约 20 张图（15 到 40）：角度、姿势、背景多样，清晰。画风：50 到 200 张。</translation>
  </message>
  <message>
   <source>Activation text</source>
   <translation>激活文本</translation>
  </message>
  <message>
   <source>Adafactor sets its own rate from the weights while training: what is drawn is only its frame.</source>
   <translation>Adafactor 训练时根据权重自己定学习率：这里画的只是外框。</translation>
  </message>
  <message>
   <source>Add a LoRA…</source>
   <translation>添加 LoRA…</translation>
  </message>
  <message>
   <source>Add a file…</source>
   <translation>添加文件…</translation>
  </message>
  <message>
   <source>Add a folder…</source>
   <translation>添加文件夹…</translation>
  </message>
  <message>
   <source>Add a prompt</source>
   <translation>添加提示词</translation>
  </message>
  <message>
   <source>Address of the mirror</source>
   <translation>镜像地址</translation>
  </message>
  <message>
   <source>Address of {program}</source>
   <translation>{program} 的地址</translation>
  </message>
  <message>
   <source>Aim at 1,000 to 2,000 steps for a character at batch size 1; save every epoch and choose the best.</source>
   <translation>批大小为 1 时，角色训练 1,000 到 2,000 步为宜；每轮都保存，再挑最好的。</translation>
  </message>
  <message>
   <source>All files</source>
   <translation>所有文件</translation>
  </message>
  <message>
   <source>Alpha is a scale, not a brake against overfitting: the update is multiplied by alpha ÷ rank. Half the rank is usual.</source>
   <translation>alpha 是缩放系数，不是防过拟合的刹车：更新会乘以 alpha ÷ 秩。一般取秩的一半。</translation>
  </message>
  <message>
   <source>Also into</source>
   <translation>同时放入</translation>
  </message>
  <message>
   <source>An address begins with https:// and has no blanks.</source>
   <translation>地址以 https:// 开头，不含空格。</translation>
  </message>
  <message>
   <source>An epoch shows {train} training pictures and {classes} class pictures, taken in turn: about twice the steps of a run without them.</source>
   <translation>每轮显示 {train} 张训练图和 {classes} 张轮流取用的类别图：步数大约是没有类别图时的两倍。</translation>
  </message>
  <message>
   <source>As the system</source>
   <translation>跟随系统</translation>
  </message>
  <message>
   <source>Ask how large it is</source>
   <translation>查询大小</translation>
  </message>
  <message>
   <source>Asks the hub for the sizes of its files, and for nothing else.</source>
   <translation>只向 Hub 询问各文件的大小，不做别的。</translation>
  </message>
  <message>
   <source>Asks the model itself, which takes about half a minute.</source>
   <translation>直接测试模型，大约需要半分钟。</translation>
  </message>
  <message>
   <source>Athanor may not read or write {file}.</source>
   <translation>Athanor 不能读写 {file}。</translation>
  </message>
  <message>
   <source>Automatic</source>
   <translation>自动</translation>
  </message>
  <message>
   <source>Back to 1e-4 and 5e-5</source>
   <translation>改回 1e-4 和 5e-5</translation>
  </message>
  <message>
   <source>Back to the preset's value</source>
   <translation>恢复预设值</translation>
  </message>
  <message>
   <source>Back to the preset's value: {value}</source>
   <translation>恢复预设值：{value}</translation>
  </message>
  <message>
   <source>Base model</source>
   <translation>底模</translation>
  </message>
  <message>
   <source>Batch 8 at 512 without checkpointing: faster.</source>
   <translation>512 分辨率、批大小 8，不开检查点：更快。</translation>
  </message>
  <message>
   <source>Batch 8 at 768 without checkpointing.</source>
   <translation>768 分辨率、批大小 8，不开检查点。</translation>
  </message>
  <message>
   <source>Before training</source>
   <translation>训练前</translation>
  </message>
  <message>
   <source>Buckets</source>
   <translation>分桶</translation>
  </message>
  <message>
   <source>CPU</source>
   <translation>CPU</translation>
  </message>
  <message>
   <source>Cache</source>
   <translation>缓存</translation>
  </message>
  <message>
   <source>Cancel</source>
   <translation>取消</translation>
  </message>
  <message>
   <source>Captions</source>
   <translation>标注</translation>
  </message>
  <message>
   <source>Checking the pictures</source>
   <translation>正在检查图片</translation>
  </message>
  <message>
   <source>Choose a colour</source>
   <translation>选择颜色</translation>
  </message>
  <message>
   <source>Choose a file…</source>
   <translation>选择文件…</translation>
  </message>
  <message>
   <source>Choose a folder…</source>
   <translation>选择文件夹…</translation>
  </message>
  <message>
   <source>Choose another place, or change the rights of this one.</source>
   <translation>请换一个位置，或修改这里的权限。</translation>
  </message>
  <message>
   <source>Choose the folder that the program was installed in.</source>
   <translation>请选择程序所在的安装文件夹。</translation>
  </message>
  <message>
   <source>Choose…</source>
   <translation>选择…</translation>
  </message>
  <message>
   <source>Clear</source>
   <translation>清空</translation>
  </message>
  <message>
   <source>Click a picture to see it beside the one before training.</source>
   <translation>点一张图，与训练前的那张并排比较。</translation>
  </message>
  <message>
   <source>Clip skip: 2 for anime models, 1 for photographic ones, as you set it when you draw.</source>
   <translation>Clip skip：动漫模型用 2，写实模型用 1，和你画图时的设置一致。</translation>
  </message>
  <message>
   <source>Close</source>
   <translation>关闭</translation>
  </message>
  <message>
   <source>Close Athanor?</source>
   <translation>关闭 Athanor？</translation>
  </message>
  <message>
   <source>Copy</source>
   <translation>复制</translation>
  </message>
  <message>
   <source>Copy all as JSON</source>
   <translation>全部复制为 JSON</translation>
  </message>
  <message>
   <source>Copy report</source>
   <translation>复制报告</translation>
  </message>
  <message>
   <source>Copying the LoRA</source>
   <translation>正在复制 LoRA</translation>
  </message>
  <message>
   <source>Copying…</source>
   <translation>正在复制…</translation>
  </message>
  <message>
   <source>Dark</source>
   <translation>深色</translation>
  </message>
  <message>
   <source>Device</source>
   <translation>设备</translation>
  </message>
  <message>
   <source>Do not put a part of a style's own pictures here: that teaches the style to the class.</source>
   <translation>不要把画风自己的图放一部分到这里：那样会把画风教给类别。</translation>
  </message>
  <message>
   <source>Download</source>
   <translation>下载</translation>
  </message>
  <message>
   <source>Download from a mirror</source>
   <translation>从镜像下载</translation>
  </message>
  <message>
   <source>Downloading the model (MB)</source>
   <translation>正在下载模型（MB）</translation>
  </message>
  <message>
   <source>Drafts and preferences</source>
   <translation>草稿与偏好设置</translation>
  </message>
  <message>
   <source>Drag to look closer, double-click for all. Faint lines are epochs, triangles saved files.</source>
   <translation>拖动可放大，双击看全部。浅线是轮次，三角是保存的文件。</translation>
  </message>
  <message>
   <source>Drawing previews</source>
   <translation>正在画预览图</translation>
  </message>
  <message>
   <source>Drop a file here</source>
   <translation>把文件拖到这里</translation>
  </message>
  <message>
   <source>Drop a file or folder here</source>
   <translation>把文件或文件夹拖到这里</translation>
  </message>
  <message>
   <source>Drop a folder here</source>
   <translation>把文件夹拖到这里</translation>
  </message>
  <message>
   <source>Drop a folder with pictures here, or choose one. A kohya folder such as 10_rufus cat, or its parent, is fine.</source>
   <translation>把放图片的文件夹拖到这里，或点按钮选择。kohya 式的文件夹（如 10_rufus cat）或它的上级都可以。</translation>
  </message>
  <message>
   <source>Drop a model here: Stable Diffusion 1.x, 2.x or SDXL, any format. Or take one from the list below, write the name of one on the Hugging Face hub (owner/name), or see a whole training on the small example first.</source>
   <translation>把底模拖到这里：Stable Diffusion 1.x、2.x 或 SDXL，任何格式都行。也可以从下面的列表里选，或填写 Hugging Face 上的模型名（作者/名称），或先用小例子看一遍完整的训练。</translation>
  </message>
  <message>
   <source>Drop it to choose:</source>
   <translation>松手即选用：</translation>
  </message>
  <message>
   <source>Drop the model's folder here</source>
   <translation>把模型文件夹拖到这里</translation>
  </message>
  <message>
   <source>Duplicate this prompt</source>
   <translation>复制这条提示词</translation>
  </message>
  <message>
   <source>Each keeps its shape; none is dropped.</source>
   <translation>每张都保持原来的比例，一张也不丢。</translation>
  </message>
  <message>
   <source>Earlier picture</source>
   <translation>较早的图</translation>
  </message>
  <message>
   <source>Edit prompts…</source>
   <translation>编辑提示词…</translation>
  </message>
  <message>
   <source>Encoding the pictures</source>
   <translation>正在编码图片</translation>
  </message>
  <message>
   <source>Ended without a word</source>
   <translation>没有留话就结束了</translation>
  </message>
  <message>
   <source>Ending, and saving…</source>
   <translation>正在结束并保存……</translation>
  </message>
  <message>
   <source>Ending…</source>
   <translation>正在结束……</translation>
  </message>
  <message>
   <source>Ends at once, without saving. The last snapshot stays, and the run can go on from it.</source>
   <translation>立即结束，不保存。最近的快照还在，可以从那里接着训练。</translation>
  </message>
  <message>
   <source>Entry</source>
   <translation>条目</translation>
  </message>
  <message>
   <source>Epoch</source>
   <translation>轮（epoch）</translation>
  </message>
  <message>
   <source>Everything goes into a new folder in {folder}.</source>
   <translation>所有文件都放在 {folder} 里的一个新文件夹。</translation>
  </message>
  <message>
   <source>Everything that the file says about itself</source>
   <translation>文件里写着的全部信息</translation>
  </message>
  <message>
   <source>Export</source>
   <translation>导出</translation>
  </message>
  <message>
   <source>Export the LoRA</source>
   <translation>导出 LoRA</translation>
  </message>
  <message>
   <source>Export to a WebUI…</source>
   <translation>导出到 WebUI…</translation>
  </message>
  <message>
   <source>Failed</source>
   <translation>失败</translation>
  </message>
  <message>
   <source>Figures appear here as soon as they are known.</source>
   <translation>各项数字一算出来就显示在这里。</translation>
  </message>
  <message>
   <source>File</source>
   <translation>文件</translation>
  </message>
  <message>
   <source>Files kept: {count}, {size} in all</source>
   <translation>保留 {count} 个文件，共 {size}</translation>
  </message>
  <message>
   <source>Files: {count} of about {size} need {all}, and only {free} are free on that disk.</source>
   <translation>{count} 个约 {size} 的文件要 {all}，而那块磁盘只剩 {free}。</translation>
  </message>
  <message>
   <source>Files: {count} of about {size}, {all} in all. Free on that disk: {free}.</source>
   <translation>{count} 个约 {size} 的文件，共 {all}。那块磁盘剩余：{free}。</translation>
  </message>
  <message>
   <source>Find a setting</source>
   <translation>查找设置</translation>
  </message>
  <message>
   <source>Find a setting (Ctrl+F)</source>
   <translation>查找设置 (Ctrl+F)</translation>
  </message>
  <message>
   <source>Find out</source>
   <translation>测一测</translation>
  </message>
  <message>
   <source>Finished</source>
   <translation>已完成</translation>
  </message>
  <message>
   <source>Fold the help away (F1)</source>
   <translation>收起帮助 (F1)</translation>
  </message>
  <message>
   <source>Folder</source>
   <translation>文件夹</translation>
  </message>
  <message>
   <source>Folder of the model</source>
   <translation>模型的文件夹</translation>
  </message>
  <message>
   <source>Folder of the program</source>
   <translation>程序的文件夹</translation>
  </message>
  <message>
   <source>Folders</source>
   <translation>文件夹</translation>
  </message>
  <message>
   <source>For a LoRA with AdamW 1e-4 is a good start, with 5e-5 for the text encoder (anime models: 1e-5).</source>
   <translation>用 AdamW 训练 LoRA，1e-4 是好起点，文本编码器用 5e-5（动漫模型：1e-5）。</translation>
  </message>
  <message>
   <source>For model files of every family. Nothing is changed in place unless you say so.</source>
   <translation>适用于各个家族的模型文件。除非你要求，否则不会改动原文件。</translation>
  </message>
  <message>
   <source>Gallery</source>
   <translation>图库</translation>
  </message>
  <message>
   <source>Go on</source>
   <translation>继续</translation>
  </message>
  <message>
   <source>Go on continues from the last snapshot. If it happens again, lower the batch size or the resolution.</source>
   <translation>“继续”会从最近的快照接着训练。如果再次发生，请减小批大小或分辨率。</translation>
  </message>
  <message>
   <source>Go on training it</source>
   <translation>接着训练它</translation>
  </message>
  <message>
   <source>Go there</source>
   <translation>去看看</translation>
  </message>
  <message>
   <source>Good to know</source>
   <translation>小贴士</translation>
  </message>
  <message>
   <source>Half-downloaded files and LoRAs chosen by mistake are recognised here, before a minute is lost.</source>
   <translation>没下完的文件、误选的 LoRA，在这里马上就能认出来，不会白等。</translation>
  </message>
  <message>
   <source>Have one prompt without the trigger word: it shows whether your subject bleeds into everything.</source>
   <translation>留一条不含触发词的提示词：能看出你的主体有没有渗进所有画面。</translation>
  </message>
  <message>
   <source>Help</source>
   <translation>帮助</translation>
  </message>
  <message>
   <source>Help on the focused setting (F1)</source>
   <translation>当前设置的帮助 (F1)</translation>
  </message>
  <message>
   <source>How large each change is. The learning rate matters more than anything else here.</source>
   <translation>每次改动有多大。这里没有什么比学习率更重要。</translation>
  </message>
  <message>
   <source>How large it is, only the hub knows; it has not been asked.</source>
   <translation>还没有向 Hub 询问，所以不知道它有多大。</translation>
  </message>
  <message>
   <source>How long the run is, and how the learning rate moves over it.</source>
   <translation>训练多久，学习率在过程中怎样变化。</translation>
  </message>
  <message>
   <source>How pictures are hidden in noise, and which noise levels count.</source>
   <translation>图片怎样藏进噪声，哪些噪声级别算数。</translation>
  </message>
  <message>
   <source>How strongly the WebUI applies the LoRA when you click it; 0.7 to 1 is usual.</source>
   <translation>在 WebUI 里点这个 LoRA 时的强度；一般 0.7 到 1。</translation>
  </message>
  <message>
   <source>Images</source>
   <translation>图片</translation>
  </message>
  <message>
   <source>In files: {names}</source>
   <translation>文件里的名称：{names}</translation>
  </message>
  <message>
   <source>Into</source>
   <translation>放到</translation>
  </message>
  <message>
   <source>It broke off or the system ended it, most often because the memory was full. Close other programs.</source>
   <translation>程序崩溃或被系统结束，多半是内存不足。请先关闭其他程序。</translation>
  </message>
  <message>
   <source>It must have been started with {switch}.</source>
   <translation>启动它时须带上 {switch}。</translation>
  </message>
  <message>
   <source>It was made with zero terminal SNR.</source>
   <translation>它是按零终端信噪比（zero terminal SNR）训练的。</translation>
  </message>
  <message>
   <source>Jump to the first</source>
   <translation>跳到第一处</translation>
  </message>
  <message>
   <source>Language</source>
   <translation>语言</translation>
  </message>
  <message>
   <source>Later picture</source>
   <translation>较晚的图</translation>
  </message>
  <message>
   <source>Learning rate</source>
   <translation>学习率</translation>
  </message>
  <message>
   <source>Learning rates over the run</source>
   <translation>训练过程中的学习率</translation>
  </message>
  <message>
   <source>Left as you set it, though {family} models usually want:</source>
   <translation>保留了你的设置，不过 {family} 模型通常用：</translation>
  </message>
  <message>
   <source>Length</source>
   <translation>长度</translation>
  </message>
  <message>
   <source>Less</source>
   <translation>减小</translation>
  </message>
  <message>
   <source>Let a running {program} show it at once</source>
   <translation>让正在运行的 {program} 立即显示</translation>
  </message>
  <message>
   <source>Light</source>
   <translation>浅色</translation>
  </message>
  <message>
   <source>Line {line}, {setting}: {value} is not possible.</source>
   <translation>第 {line} 行，{setting}：{value} 不行。</translation>
  </message>
  <message>
   <source>Line {line}: {value} is not possible.</source>
   <translation>第 {line} 行：{value} 不行。</translation>
  </message>
  <message>
   <source>Lion wants a third to a tenth of AdamW's rate. Prodigy finds its own: leave it at 1.</source>
   <translation>Lion 要用 AdamW 学习率的三分之一到十分之一。Prodigy 自己找：保持 1。</translation>
  </message>
  <message>
   <source>LoRA files kept: {count} of about {size} ({all}; free: {free}).</source>
   <translation>保留 {count} 个约 {size} 的 LoRA 文件（共 {all}；剩余 {free}）。</translation>
  </message>
  <message>
   <source>Loading the base model</source>
   <translation>正在加载底模</translation>
  </message>
  <message>
   <source>Log</source>
   <translation>日志</translation>
  </message>
  <message>
   <source>Log scale</source>
   <translation>对数刻度</translation>
  </message>
  <message>
   <source>Look again</source>
   <translation>重新查看</translation>
  </message>
  <message>
   <source>Looking at it…</source>
   <translation>正在识别…</translation>
  </message>
  <message>
   <source>Looking at what happened…</source>
   <translation>正在查看发生了什么……</translation>
  </message>
  <message>
   <source>Looking for a graphics card…</source>
   <translation>正在查找显卡……</translation>
  </message>
  <message>
   <source>Looking for models…</source>
   <translation>正在查找模型…</translation>
  </message>
  <message>
   <source>Looking for runs…</source>
   <translation>正在查找训练……</translation>
  </message>
  <message>
   <source>Looking…</source>
   <translation>正在查看……</translation>
  </message>
  <message>
   <source>Loss</source>
   <translation>损失（loss）</translation>
  </message>
  <message>
   <source>Loss over the steps</source>
   <translation>各步的损失</translation>
  </message>
  <message>
   <source>Loss, smoothed</source>
   <translation>损失（平滑后）</translation>
  </message>
  <message>
   <source>Memory in use</source>
   <translation>占用的内存</translation>
  </message>
  <message>
   <source>Metadata</source>
   <translation>元数据</translation>
  </message>
  <message>
   <source>Metadata…</source>
   <translation>元数据…</translation>
  </message>
  <message>
   <source>Min-SNR gamma 5 evens out easy and hard noise levels, so that learning is quicker and steadier.</source>
   <translation>Min-SNR γ 取 5 能平衡容易和困难的噪声级别，学得更快更稳。</translation>
  </message>
  <message>
   <source>Model</source>
   <translation>模型</translation>
  </message>
  <message>
   <source>Model files</source>
   <translation>模型文件</translation>
  </message>
  <message>
   <source>Models on this computer</source>
   <translation>本机上的模型</translation>
  </message>
  <message>
   <source>More</source>
   <translation>增大</translation>
  </message>
  <message>
   <source>More epochs</source>
   <translation>增加轮数</translation>
  </message>
  <message>
   <source>More epochs…</source>
   <translation>增加轮数…</translation>
  </message>
  <message>
   <source>More settings</source>
   <translation>更多设置</translation>
  </message>
  <message>
   <source>More settings ({count})</source>
   <translation>更多设置（{count}）</translation>
  </message>
  <message>
   <source>Name</source>
   <translation>名称</translation>
  </message>
  <message>
   <source>Network</source>
   <translation>网络</translation>
  </message>
  <message>
   <source>New run</source>
   <translation>新训练</translation>
  </message>
  <message>
   <source>Next prompt</source>
   <translation>下一条提示词</translation>
  </message>
  <message>
   <source>No NVIDIA card was found: training runs on the CPU, which takes long.</source>
   <translation>没有找到 NVIDIA 显卡：用 CPU 训练，会很慢。</translation>
  </message>
  <message>
   <source>No class pictures: that is fine for most LoRAs. Drop a folder such as 1_cat here if you have one.</source>
   <translation>没有类别图：大多数 LoRA 都不需要。如果有，把 1_cat 这样的文件夹拖到这里。</translation>
  </message>
  <message>
   <source>No folder chosen</source>
   <translation>还没有选文件夹</translation>
  </message>
  <message>
   <source>No metadata</source>
   <translation>没有元数据</translation>
  </message>
  <message>
   <source>No picture</source>
   <translation>没有图片</translation>
  </message>
  <message>
   <source>No picture has a caption file: all of them are trained with the words above.</source>
   <translation>没有一张图有标注文件：全部用上面的词来训练。</translation>
  </message>
  <message>
   <source>No preset is chosen: the values are the usual ones.</source>
   <translation>没有选预设：用的是常用值。</translation>
  </message>
  <message>
   <source>No previews: you will see numbers only.</source>
   <translation>没有预览图：你只能看到数字。</translation>
  </message>
  <message>
   <source>No run yet. Press Start below when your settings are ready; curves and pictures appear here.</source>
   <translation>还没有训练。设置好后按下面的“开始”；曲线和图片会出现在这里。</translation>
  </message>
  <message>
   <source>Noise and loss</source>
   <translation>噪声与损失</translation>
  </message>
  <message>
   <source>None found where image programs are usually installed.</source>
   <translation>在绘图程序常见的安装位置没有找到模型。</translation>
  </message>
  <message>
   <source>Nothing learnt after a third of the run: raise the rate. Burnt colours and stiff poses: lower it.</source>
   <translation>训练了三分之一还没学到东西：提高学习率。颜色发焦、姿势僵硬：降低学习率。</translation>
  </message>
  <message>
   <source>Of this window. They hold at once and touch no run.</source>
   <translation>这个窗口自己的设置，立即生效，不影响任何训练。</translation>
  </message>
  <message>
   <source>On a card with less than 8 GB train the UNet only.</source>
   <translation>显存不到 8 GB 的显卡，只训练 UNet。</translation>
  </message>
  <message>
   <source>On the Hugging Face hub</source>
   <translation>在 Hugging Face 上</translation>
  </message>
  <message>
   <source>On the disk of the output folder</source>
   <translation>输出文件夹所在的磁盘</translation>
  </message>
  <message>
   <source>Open</source>
   <translation>打开</translation>
  </message>
  <message>
   <source>Open a run file</source>
   <translation>打开训练文件</translation>
  </message>
  <message>
   <source>Open the folder</source>
   <translation>打开文件夹</translation>
  </message>
  <message>
   <source>Opening the model and asking it…</source>
   <translation>正在打开模型并测试…</translation>
  </message>
  <message>
   <source>Opening the model…</source>
   <translation>正在打开模型……</translation>
  </message>
  <message>
   <source>Open…</source>
   <translation>打开…</translation>
  </message>
  <message>
   <source>Optimiser</source>
   <translation>优化器</translation>
  </message>
  <message>
   <source>Other programs use {used} of it; a WebUI that is open may be one of them.</source>
   <translation>其他程序占用了 {used}；可能是开着的 WebUI。</translation>
  </message>
  <message>
   <source>Other runs</source>
   <translation>其他训练</translation>
  </message>
  <message>
   <source>Out of memory? In this order: batch size down, gradient checkpointing on, UNet only, a smaller resolution.</source>
   <translation>显存不够？按这个顺序：减小批大小，打开梯度检查点，只训练 UNet，降低分辨率。</translation>
  </message>
  <message>
   <source>Output</source>
   <translation>输出</translation>
  </message>
  <message>
   <source>Own weights for the parts</source>
   <translation>各部分单独设权重</translation>
  </message>
  <message>
   <source>Pause</source>
   <translation>暂停</translation>
  </message>
  <message>
   <source>Paused; the model stays loaded</source>
   <translation>已暂停；模型仍留在内存里</translation>
  </message>
  <message>
   <source>Pictures</source>
   <translation>图片</translation>
  </message>
  <message>
   <source>Pictures by prompt and step</source>
   <translation>按提示词和步数排列的图片</translation>
  </message>
  <message>
   <source>Pictures drawn while training, so that you see whether it learns. They do not change what is learnt.</source>
   <translation>训练时画的图，让你看到它学得怎样。它们不影响训练结果。</translation>
  </message>
  <message>
   <source>Pictures of a training appear here: a row for each prompt, a column for each step.</source>
   <translation>训练中的图片会出现在这里：每条提示词一行，每个步数一列。</translation>
  </message>
  <message>
   <source>Pictures of the class (other cats, if yours is a cat), so that the model does not forget what they look like. Optional: without them a run has half the steps.</source>
   <translation>类别的图片（如果你的是一只猫，就是别的猫），让模型不忘记它们的样子。可选：没有它们，步数只有一半。</translation>
  </message>
  <message>
   <source>Pictures over time</source>
   <translation>不同时间的图片</translation>
  </message>
  <message>
   <source>Placing</source>
   <translation>放置</translation>
  </message>
  <message>
   <source>Precision {precision}, device {device}.</source>
   <translation>精度 {precision}，设备 {device}。</translation>
  </message>
  <message>
   <source>Preferred weight</source>
   <translation>推荐权重</translation>
  </message>
  <message>
   <source>Preset: {value}</source>
   <translation>预设值：{value}</translation>
  </message>
  <message>
   <source>Presets by memory</source>
   <translation>按显存选预设</translation>
  </message>
  <message>
   <source>Press a setting to see what it does.</source>
   <translation>点一个设置，就能看到它的作用。</translation>
  </message>
  <message>
   <source>Preview</source>
   <translation>预览图</translation>
  </message>
  <message>
   <source>Preview prompts</source>
   <translation>预览提示词</translation>
  </message>
  <message>
   <source>Preview {number}: {setting}</source>
   <translation>预览图 {number}：{setting}</translation>
  </message>
  <message>
   <source>Previews that freeze while the loss still moves are overfitting: take an earlier epoch.</source>
   <translation>损失还在变、预览图却不动了，就是过拟合：取更早的一轮。</translation>
  </message>
  <message>
   <source>Previous prompt</source>
   <translation>上一条提示词</translation>
  </message>
  <message>
   <source>Progress</source>
   <translation>进度</translation>
  </message>
  <message>
   <source>Prompt {number}</source>
   <translation>提示词 {number}</translation>
  </message>
  <message>
   <source>Read once what is going to happen, and start.</source>
   <translation>把将要发生的事读一遍，然后开始。</translation>
  </message>
  <message>
   <source>Reading the run…</source>
   <translation>正在读取训练……</translation>
  </message>
  <message>
   <source>Reading…</source>
   <translation>正在读取…</translation>
  </message>
  <message>
   <source>Redo</source>
   <translation>重做</translation>
  </message>
  <message>
   <source>Redo (Ctrl+Y)</source>
   <translation>重做 (Ctrl+Y)</translation>
  </message>
  <message>
   <source>Regularisation</source>
   <translation>正则化</translation>
  </message>
  <message>
   <source>Remove</source>
   <translation>删除</translation>
  </message>
  <message>
   <source>Remove from the list</source>
   <translation>从列表移除</translation>
  </message>
  <message>
   <source>Remove it</source>
   <translation>删掉它</translation>
  </message>
  <message>
   <source>Remove this prompt</source>
   <translation>删除这条提示词</translation>
  </message>
  <message>
   <source>Repeats</source>
   <translation>重复次数</translation>
  </message>
  <message>
   <source>Replace</source>
   <translation>替换</translation>
  </message>
  <message>
   <source>Result</source>
   <translation>结果</translation>
  </message>
  <message>
   <source>Review</source>
   <translation>检查</translation>
  </message>
  <message>
   <source>Roll a new seed</source>
   <translation>换一个种子</translation>
  </message>
  <message>
   <source>Run file</source>
   <translation>训练文件</translation>
  </message>
  <message>
   <source>Run files</source>
   <translation>训练文件</translation>
  </message>
  <message>
   <source>Run this tool</source>
   <translation>开始处理</translation>
  </message>
  <message>
   <source>Runs</source>
   <translation>训练</translation>
  </message>
  <message>
   <source>Runs without an output folder</source>
   <translation>没有设输出文件夹的训练</translation>
  </message>
  <message>
   <source>Sample now</source>
   <translation>立即画预览</translation>
  </message>
  <message>
   <source>Samples</source>
   <translation>预览</translation>
  </message>
  <message>
   <source>Save</source>
   <translation>保存</translation>
  </message>
  <message>
   <source>Save as a run file…</source>
   <translation>另存为训练文件…</translation>
  </message>
  <message>
   <source>Save as…</source>
   <translation>另存为…</translation>
  </message>
  <message>
   <source>Save every epoch: the best one is rarely the last.</source>
   <translation>每轮都保存：最好的很少是最后一轮。</translation>
  </message>
  <message>
   <source>Save now</source>
   <translation>立即保存</translation>
  </message>
  <message>
   <source>Saving</source>
   <translation>保存</translation>
  </message>
  <message>
   <source>Scheduler</source>
   <translation>学习率调度器</translation>
  </message>
  <message>
   <source>Search</source>
   <translation>搜索</translation>
  </message>
  <message>
   <source>Search by name, family or folder</source>
   <translation>按名称、家族或文件夹搜索</translation>
  </message>
  <message>
   <source>Search in everything</source>
   <translation>搜索全部内容</translation>
  </message>
  <message>
   <source>Search models</source>
   <translation>搜索模型</translation>
  </message>
  <message>
   <source>Seconds a step</source>
   <translation>每步秒数</translation>
  </message>
  <message>
   <source>See whether the disk is full or the file is open elsewhere, and try again.</source>
   <translation>请看看磁盘是否已满，或文件是否在别处打开，然后再试。</translation>
  </message>
  <message>
   <source>Set as {family} models want it:</source>
   <translation>已按 {family} 模型的需要设置：</translation>
  </message>
  <message>
   <source>Set the rates to 1</source>
   <translation>把学习率设为 1</translation>
  </message>
  <message>
   <source>Settings</source>
   <translation>设置</translation>
  </message>
  <message>
   <source>Shape</source>
   <translation>形状</translation>
  </message>
  <message>
   <source>Show in folder</source>
   <translation>在文件夹中显示</translation>
  </message>
  <message>
   <source>Show the log</source>
   <translation>查看日志</translation>
  </message>
  <message>
   <source>Show the run</source>
   <translation>查看训练</translation>
  </message>
  <message>
   <source>Show what a file says…</source>
   <translation>查看文件信息…</translation>
  </message>
  <message>
   <source>Show {count} more</source>
   <translation>再显示 {count} 个</translation>
  </message>
  <message>
   <source>Show {file} in its folder</source>
   <translation>在文件夹中显示 {file}</translation>
  </message>
  <message>
   <source>Size</source>
   <translation>大小</translation>
  </message>
  <message>
   <source>Size of the pictures</source>
   <translation>图片的大小</translation>
  </message>
  <message>
   <source>Sizes</source>
   <translation>尺寸</translation>
  </message>
  <message>
   <source>Smoothing</source>
   <translation>平滑</translation>
  </message>
  <message>
   <source>Something went wrong</source>
   <translation>出了点问题</translation>
  </message>
  <message>
   <source>Speed and memory</source>
   <translation>速度与显存</translation>
  </message>
  <message>
   <source>Start</source>
   <translation>开始</translation>
  </message>
  <message>
   <source>Start training (Ctrl+Enter)</source>
   <translation>开始训练 (Ctrl+Enter)</translation>
  </message>
  <message>
   <source>Starting…</source>
   <translation>正在启动……</translation>
  </message>
  <message>
   <source>Stay open</source>
   <translation>不关闭</translation>
  </message>
  <message>
   <source>Step</source>
   <translation>步</translation>
  </message>
  <message>
   <source>Step {step}</source>
   <translation>第 {step} 步</translation>
  </message>
  <message>
   <source>Still to do</source>
   <translation>还要做的事</translation>
  </message>
  <message>
   <source>Stop</source>
   <translation>停止</translation>
  </message>
  <message>
   <source>Stop and save</source>
   <translation>停止并保存</translation>
  </message>
  <message>
   <source>Stop it and close</source>
   <translation>停止并关闭</translation>
  </message>
  <message>
   <source>Stop now</source>
   <translation>立即停止</translation>
  </message>
  <message>
   <source>Stopped and saved</source>
   <translation>已停止并保存</translation>
  </message>
  <message>
   <source>Stopped without saving</source>
   <translation>已停止，没有保存</translation>
  </message>
  <message>
   <source>Stopped. Captions that were written stay.</source>
   <translation>已停止。已写好的标注会保留。</translation>
  </message>
  <message>
   <source>Stopped. Nothing was written.</source>
   <translation>已停止，没有写入任何文件。</translation>
  </message>
  <message>
   <source>Stopped. What has come stays, and is not downloaded again.</source>
   <translation>已停止。已下载的部分会保留，下次不必重下。</translation>
  </message>
  <message>
   <source>Stopping after this picture…</source>
   <translation>这张图完成后停止……</translation>
  </message>
  <message>
   <source>Stopping…</source>
   <translation>正在停止…</translation>
  </message>
  <message>
   <source>Tag</source>
   <translation>标签</translation>
  </message>
  <message>
   <source>Tagger</source>
   <translation>打标器</translation>
  </message>
  <message>
   <source>Tags</source>
   <translation>标签</translation>
  </message>
  <message>
   <source>Take out</source>
   <translation>移出</translation>
  </message>
  <message>
   <source>Take out of the list (nothing is deleted)</source>
   <translation>从列表中移除（不删除任何文件）</translation>
  </message>
  <message>
   <source>Take these over too</source>
   <translation>这些也采用</translation>
  </message>
  <message>
   <source>Tensor</source>
   <translation>张量</translation>
  </message>
  <message>
   <source>Tensors</source>
   <translation>张量</translation>
  </message>
  <message>
   <source>Text encoder</source>
   <translation>文本编码器</translation>
  </message>
  <message>
   <source>The LoRA is ready: {file}</source>
   <translation>LoRA 做好了：{file}</translation>
  </message>
  <message>
   <source>The LoRA itself: which parts of the model learn, and how much it can hold.</source>
   <translation>LoRA 本身：模型的哪些部分在学，能装下多少。</translation>
  </message>
  <message>
   <source>The caption of class pictures is the class alone (cat), without the trigger word.</source>
   <translation>类别图的标注只写类别（cat），不带触发词。</translation>
  </message>
  <message>
   <source>The captions as they were: {folders}</source>
   <translation>原来的标注：{folders}</translation>
  </message>
  <message>
   <source>The command ended with code {code}.</source>
   <translation>命令已结束，代码 {code}。</translation>
  </message>
  <message>
   <source>The copy in your image program never replaces another file of the same name without being asked.</source>
   <translation>复制到图像程序时，没有你的同意绝不覆盖同名文件。</translation>
  </message>
  <message>
   <source>The file does not say it, and models of this kind differ.</source>
   <translation>文件里没有写明，而这类模型两种都有。</translation>
  </message>
  <message>
   <source>The file will be about {size}.</source>
   <translation>文件大约 {size}。</translation>
  </message>
  <message>
   <source>The finished LoRA can be put where your image program finds it.</source>
   <translation>做好的 LoRA 可以放到你的图像程序能找到的地方。</translation>
  </message>
  <message>
   <source>The finished one is copied to {target}.</source>
   <translation>做好的会复制到 {target}。</translation>
  </message>
  <message>
   <source>The first LoRA file appears here when it is saved.</source>
   <translation>第一个 LoRA 文件保存后会出现在这里。</translation>
  </message>
  <message>
   <source>The first preview appears here.</source>
   <translation>第一张预览图会出现在这里。</translation>
  </message>
  <message>
   <source>The folder of your WebUI, ComfyUI, or any other</source>
   <translation>WebUI、ComfyUI 或任意文件夹</translation>
  </message>
  <message>
   <source>The last lines: {lines}</source>
   <translation>最后几行：{lines}</translation>
  </message>
  <message>
   <source>The model that learns. It is only read, never changed.</source>
   <translation>要学习的模型。只读取，绝不改动。</translation>
  </message>
  <message>
   <source>The next previews are drawn with this list; pictures drawn before stay.</source>
   <translation>接下来的预览图用这份列表；画好的保留。</translation>
  </message>
  <message>
   <source>The pictures to learn. They are only read: nothing is moved, renamed or changed.</source>
   <translation>要学的图片。只读取：不移动、不改名、不改动任何文件。</translation>
  </message>
  <message>
   <source>The run file</source>
   <translation>训练文件</translation>
  </message>
  <message>
   <source>The same run from a console: python -m trainer RUN.toml</source>
   <translation>在终端里运行同样的训练：python -m trainer RUN.toml</translation>
  </message>
  <message>
   <source>The steps are counted as soon as there are pictures.</source>
   <translation>有了图片就能算出步数。</translation>
  </message>
  <message>
   <source>The system refused a file: {reason}.</source>
   <translation>系统拒绝了一个文件：{reason}。</translation>
  </message>
  <message>
   <source>The training did not take that. It may be busy loading; try again in a moment.</source>
   <translation>训练没有收到。它可能正忙着加载；请稍后再试。</translation>
  </message>
  <message>
   <source>The training ended without a word: it was killed, ran out of memory, or the computer was switched off.</source>
   <translation>训练没有留话就结束了：被强行结束、内存耗尽，或电脑关机。</translation>
  </message>
  <message>
   <source>The training goes on without this window. Open Athanor again whenever you like: everything is there.</source>
   <translation>窗口关了，训练照常进行。随时再打开 Athanor：一切都在。</translation>
  </message>
  <message>
   <source>The {part} is not in this file. Choose a file that has it:</source>
   <translation>这个文件缺少：{part}。请选一个带有它的文件：</translation>
  </message>
  <message>
   <source>Theme</source>
   <translation>主题</translation>
  </message>
  <message>
   <source>There are {count} prompts, but no previews are asked for.</source>
   <translation>有 {count} 条提示词，但没有设定何时画预览图。</translation>
  </message>
  <message>
   <source>There is no other run.</source>
   <translation>没有其他训练。</translation>
  </message>
  <message>
   <source>There is no such folder.</source>
   <translation>没有这个文件夹。</translation>
  </message>
  <message>
   <source>They set first values for a Stable Diffusion 1.x LoRA. Ctrl+Z takes them back.</source>
   <translation>为 Stable Diffusion 1.x 的 LoRA 设好起始值。按 Ctrl+Z 可撤销。</translation>
  </message>
  <message>
   <source>Time left</source>
   <translation>剩余时间</translation>
  </message>
  <message>
   <source>Tools</source>
   <translation>工具</translation>
  </message>
  <message>
   <source>Train on it</source>
   <translation>用它训练</translation>
  </message>
  <message>
   <source>Train on the model that you draw with, or on the one it comes from: a LoRA fits its own family only.</source>
   <translation>在你画图用的模型、或它的源头模型上训练：LoRA 只适合自己的那一族。</translation>
  </message>
  <message>
   <source>Train on what you may train on, and respect the artists' licences.</source>
   <translation>只用你有权用来训练的图片，并尊重画师的授权。</translation>
  </message>
  <message>
   <source>Train until this epoch; the run goes on where it stopped:</source>
   <translation>训练到这一轮；从停下的地方接着来：</translation>
  </message>
  <message>
   <source>Training</source>
   <translation>训练</translation>
  </message>
  <message>
   <source>Training goes on</source>
   <translation>训练继续进行</translation>
  </message>
  <message>
   <source>Try again</source>
   <translation>再试一次</translation>
  </message>
  <message>
   <source>Try the example</source>
   <translation>试试示例</translation>
  </message>
  <message>
   <source>Type</source>
   <translation>类型</translation>
  </message>
  <message>
   <source>UNet</source>
   <translation>UNet</translation>
  </message>
  <message>
   <source>UNet and text encoder, batch 4, up to 768.</source>
   <translation>UNet 和文本编码器，批大小 4，最高 768。</translation>
  </message>
  <message>
   <source>UNet and text encoder, batch 4.</source>
   <translation>UNet 和文本编码器，批大小 4。</translation>
  </message>
  <message>
   <source>UNet only, batch 1, everything that saves memory is on.</source>
   <translation>只训练 UNet，批大小 1，所有省显存的选项都打开。</translation>
  </message>
  <message>
   <source>UNet only, batch 2, rank 32.</source>
   <translation>只训练 UNet，批大小 2，秩 32。</translation>
  </message>
  <message>
   <source>Undo</source>
   <translation>撤销</translation>
  </message>
  <message>
   <source>Undo (Ctrl+Z)</source>
   <translation>撤销 (Ctrl+Z)</translation>
  </message>
  <message>
   <source>Undo these changes</source>
   <translation>撤销这些改动</translation>
  </message>
  <message>
   <source>Use about as many as training pictures × repeats. Several concepts of one class share one class folder.</source>
   <translation>数量大约等于训练图 × 重复次数。同一类别的几个概念共用一个类别文件夹。</translation>
  </message>
  <message>
   <source>Use from now on</source>
   <translation>从现在起使用</translation>
  </message>
  <message>
   <source>Use it as the VAE</source>
   <translation>用作 VAE</translation>
  </message>
  <message>
   <source>Use it as the text encoder</source>
   <translation>用作文本编码器</translation>
  </message>
  <message>
   <source>Use the preset {title}</source>
   <translation>使用 {title} 预设</translation>
  </message>
  <message>
   <source>Use this folder</source>
   <translation>使用这个文件夹</translation>
  </message>
  <message>
   <source>Use this model</source>
   <translation>使用这个模型</translation>
  </message>
  <message>
   <source>Used before</source>
   <translation>最近用过</translation>
  </message>
  <message>
   <source>VAE</source>
   <translation>VAE</translation>
  </message>
  <message>
   <source>Value</source>
   <translation>值</translation>
  </message>
  <message>
   <source>Waits until the one before is done.</source>
   <translation>等前一个完成后开始。</translation>
  </message>
  <message>
   <source>Warm-up of 5 % is enough. Cosine suits AdamW, constant suits Prodigy.</source>
   <translation>预热 5 % 就够了。AdamW 配余弦，Prodigy 配常数。</translation>
  </message>
  <message>
   <source>What a click on the LoRA adds to the prompt: its trigger words.</source>
   <translation>点这个 LoRA 时加到提示词里的内容：它的触发词。</translation>
  </message>
  <message>
   <source>What fits into your card, and how fast it goes.</source>
   <translation>你的显卡装得下什么，跑得多快。</translation>
  </message>
  <message>
   <source>What it is</source>
   <translation>是什么</translation>
  </message>
  <message>
   <source>What it predicts</source>
   <translation>预测类型</translation>
  </message>
  <message>
   <source>What will happen</source>
   <translation>将会发生什么</translation>
  </message>
  <message>
   <source>What you delete from the captions is learnt into the trigger word; what stays can be changed later by the prompt.</source>
   <translation>从标注里删掉的，会学进触发词；留下的，以后可以用提示词来改。</translation>
  </message>
  <message>
   <source>What {file} says</source>
   <translation>{file} 的信息</translation>
  </message>
  <message>
   <source>When</source>
   <translation>何时</translation>
  </message>
  <message>
   <source>When a run suddenly takes ten times as long, the card spills into the computer's memory: lower the batch size.</source>
   <translation>如果突然慢了十倍，就是显存溢出到内存了：请减小批大小。</translation>
  </message>
  <message>
   <source>Where the files go, and what is written in them.</source>
   <translation>文件放在哪里，里面写些什么。</translation>
  </message>
  <message>
   <source>Where the hub cannot be reached, the address of a mirror that speaks its language. Empty asks the hub itself.</source>
   <translation>连不上 Hugging Face 时，填写兼容的镜像地址。留空则直接访问官方站点。</translation>
  </message>
  <message>
   <source>Where to write</source>
   <translation>写到哪里</translation>
  </message>
  <message>
   <source>With a user and password: http://user:password@host:port. They are not remembered.</source>
   <translation>需要用户名和密码时：http://user:password@host:port。它们不会被保存。</translation>
  </message>
  <message>
   <source>Without previews you only see numbers. Two prompts are enough: one with the trigger word, one without.</source>
   <translation>没有预览图，你只能看到数字。两条提示词就够：一条带触发词，一条不带。</translation>
  </message>
  <message>
   <source>Words</source>
   <translation>词</translation>
  </message>
  <message>
   <source>Works everywhere and takes long: for the example and for small tests.</source>
   <translation>到处能用，但很慢：适合示例和小试验。</translation>
  </message>
  <message>
   <source>Worth a look</source>
   <translation>值得看一眼</translation>
  </message>
  <message>
   <source>Write captions</source>
   <translation>写标注</translation>
  </message>
  <message>
   <source>Write captions with a tagger</source>
   <translation>用打标器写标注</translation>
  </message>
  <message>
   <source>Write captions with a tagger…</source>
   <translation>用打标器写标注…</translation>
  </message>
  <message>
   <source>Your files</source>
   <translation>你的文件</translation>
  </message>
  <message>
   <source>Your settings are saved, and a running training goes on. If it happens again, copy the report and send it.</source>
   <translation>你的设置已保存，正在进行的训练不受影响。如果再次发生，请复制报告发给我们。</translation>
  </message>
  <message>
   <source>a file</source>
   <translation>每个文件</translation>
  </message>
  <message>
   <source>after every epoch</source>
   <translation>每轮之后</translation>
  </message>
  <message>
   <source>alpha {alpha}</source>
   <translation>alpha {alpha}</translation>
  </message>
  <message>
   <source>at the end</source>
   <translation>结束时</translation>
  </message>
  <message>
   <source>automatic</source>
   <translation>自动</translation>
  </message>
  <message>
   <source>before</source>
   <translation>之前</translation>
  </message>
  <message>
   <source>before the first step</source>
   <translation>第一步之前</translation>
  </message>
  <message>
   <source>bf16 needs an RTX 30 card or newer; older ones take fp16.</source>
   <translation>bf16 需要 RTX 30 或更新的显卡；旧卡用 fp16。</translation>
  </message>
  <message>
   <source>by name</source>
   <translation>按文件夹名</translation>
  </message>
  <message>
   <source>checking the pictures</source>
   <translation>正在检查图片</translation>
  </message>
  <message>
   <source>class pictures</source>
   <translation>类别图</translation>
  </message>
  <message>
   <source>copied</source>
   <translation>已复制</translation>
  </message>
  <message>
   <source>copying the LoRA</source>
   <translation>正在复制 LoRA</translation>
  </message>
  <message>
   <source>diffusers folder</source>
   <translation>diffusers 文件夹</translation>
  </message>
  <message>
   <source>downloading the model</source>
   <translation>正在下载模型</translation>
  </message>
  <message>
   <source>drawing previews</source>
   <translation>正在画预览图</translation>
  </message>
  <message>
   <source>empty</source>
   <translation>空</translation>
  </message>
  <message>
   <source>encoding the pictures</source>
   <translation>正在编码图片</translation>
  </message>
  <message>
   <source>every {count} epochs</source>
   <translation>每 {count} 轮</translation>
  </message>
  <message>
   <source>every {count} steps</source>
   <translation>每 {count} 步</translation>
  </message>
  <message>
   <source>failed</source>
   <translation>失败</translation>
  </message>
  <message>
   <source>final</source>
   <translation>最终</translation>
  </message>
  <message>
   <source>fine</source>
   <translation>正常</translation>
  </message>
  <message>
   <source>finished</source>
   <translation>已完成</translation>
  </message>
  <message>
   <source>free disk</source>
   <translation>磁盘剩余</translation>
  </message>
  <message>
   <source>has a problem</source>
   <translation>有问题</translation>
  </message>
  <message>
   <source>has a warning</source>
   <translation>有提醒</translation>
  </message>
  <message>
   <source>inpainting</source>
   <translation>局部重绘</translation>
  </message>
  <message>
   <source>interrupted</source>
   <translation>中断</translation>
  </message>
  <message>
   <source>its UNet and its text encoder learn</source>
   <translation>UNet 和文本编码器都学习</translation>
  </message>
  <message>
   <source>its UNet learns</source>
   <translation>UNet 学习</translation>
  </message>
  <message>
   <source>its text encoder learns</source>
   <translation>文本编码器学习</translation>
  </message>
  <message>
   <source>loading the model</source>
   <translation>正在加载模型</translation>
  </message>
  <message>
   <source>loss</source>
   <translation>损失</translation>
  </message>
  <message>
   <source>loss {loss}</source>
   <translation>损失 {loss}</translation>
  </message>
  <message>
   <source>no picture</source>
   <translation>没有图片</translation>
  </message>
  <message>
   <source>not looked at yet</source>
   <translation>还没看过</translation>
  </message>
  <message>
   <source>not saved as a file</source>
   <translation>尚未存为文件</translation>
  </message>
  <message>
   <source>off</source>
   <translation>关</translation>
  </message>
  <message>
   <source>on</source>
   <translation>开</translation>
  </message>
  <message>
   <source>paused</source>
   <translation>已暂停</translation>
  </message>
  <message>
   <source>rank {rank}</source>
   <translation>秩 {rank}</translation>
  </message>
  <message>
   <source>rate {number}</source>
   <translation>学习率 {number}</translation>
  </message>
  <message>
   <source>saved</source>
   <translation>已保存</translation>
  </message>
  <message>
   <source>saving</source>
   <translation>正在保存</translation>
  </message>
  <message>
   <source>saving and ending</source>
   <translation>正在保存并结束</translation>
  </message>
  <message>
   <source>second text encoder</source>
   <translation>第二文本编码器</translation>
  </message>
  <message>
   <source>smoothed</source>
   <translation>平滑后</translation>
  </message>
  <message>
   <source>something has failed</source>
   <translation>有任务失败</translation>
  </message>
  <message>
   <source>something is done</source>
   <translation>有任务完成</translation>
  </message>
  <message>
   <source>starting</source>
   <translation>正在启动</translation>
  </message>
  <message>
   <source>step {step}</source>
   <translation>第 {step} 步</translation>
  </message>
  <message>
   <source>step {step} of {total}</source>
   <translation>第 {step} 步，共 {total} 步</translation>
  </message>
  <message>
   <source>step {step}, epoch {epoch}</source>
   <translation>第 {step} 步，第 {epoch} 轮</translation>
  </message>
  <message>
   <source>steps</source>
   <translation>步数</translation>
  </message>
  <message>
   <source>still to be filled in</source>
   <translation>还没有填</translation>
  </message>
  <message>
   <source>stopped</source>
   <translation>已停止</translation>
  </message>
  <message>
   <source>such as 512 or 768, 512</source>
   <translation>例如 512 或 768, 512</translation>
  </message>
  <message>
   <source>text encoder</source>
   <translation>文本编码器</translation>
  </message>
  <message>
   <source>the program's own</source>
   <translation>程序自己的</translation>
  </message>
  <message>
   <source>the words in each folder's name</source>
   <translation>各文件夹名里的词</translation>
  </message>
  <message>
   <source>training</source>
   <translation>训练图</translation>
  </message>
  <message>
   <source>warm-up</source>
   <translation>预热</translation>
  </message>
  <message>
   <source>{count} changed</source>
   <translation>改了 {count} 项</translation>
  </message>
  <message>
   <source>{count} class pictures keep the model from forgetting.</source>
   <translation>{count} 张类别图让模型不忘记。</translation>
  </message>
  <message>
   <source>{count} files are left out.</source>
   <translation>{count} 个文件不参加。</translation>
  </message>
  <message>
   <source>{count} pictures</source>
   <translation>{count} 张图</translation>
  </message>
  <message>
   <source>{count} pictures an epoch are trained at {width}×{height}</source>
   <translation>每轮有 {count} 张图按 {width}×{height} 训练</translation>
  </message>
  <message>
   <source>{count} pictures an epoch in {sizes} sizes; none is dropped.</source>
   <translation>每轮 {count} 张图，{sizes} 种尺寸；一张也不丢。</translation>
  </message>
  <message>
   <source>{count} pictures an epoch, all in one size.</source>
   <translation>每轮 {count} 张图，尺寸都一样。</translation>
  </message>
  <message>
   <source>{count} pictures are learnt.</source>
   <translation>学习 {count} 张图。</translation>
  </message>
  <message>
   <source>{count} pictures have no caption: {names}</source>
   <translation>{count} 张图没有标注：{names}</translation>
  </message>
  <message>
   <source>{count} pictures in {folders} folders, {shown} shown in an epoch</source>
   <translation>{folders} 个文件夹共 {count} 张图，每轮显示 {shown} 次</translation>
  </message>
  <message>
   <source>{count} pictures × {repeats} repeats = {shown} shown in an epoch</source>
   <translation>{count} 张图 × 重复 {repeats} 次 = 每轮显示 {shown} 次</translation>
  </message>
  <message>
   <source>{count} previews are drawn: {times}.</source>
   <translation>画 {count} 张预览图：{times}。</translation>
  </message>
  <message>
   <source>{count} problems</source>
   <translation>{count} 个问题</translation>
  </message>
  <message>
   <source>{count} things to choose</source>
   <translation>还有 {count} 项要选</translation>
  </message>
  <message>
   <source>{count} vectors</source>
   <translation>{count} 个向量</translation>
  </message>
  <message>
   <source>{count} warnings</source>
   <translation>{count} 条提醒</translation>
  </message>
  <message>
   <source>{done} of {total}</source>
   <translation>已下载 {done}，共 {total}</translation>
  </message>
  <message>
   <source>{done} of {total} pictures</source>
   <translation>{done} / {total} 张图</translation>
  </message>
  <message>
   <source>{epochs} epochs of {steps} steps</source>
   <translation>{epochs} 轮，每轮 {steps} 步</translation>
  </message>
  <message>
   <source>{file} is left out: {why}</source>
   <translation>{file} 不参加：{why}</translation>
  </message>
  <message>
   <source>{file} is there.</source>
   <translation>已放好：{file}。</translation>
  </message>
  <message>
   <source>{file} is there. Refresh the program's list of LoRAs.</source>
   <translation>{file} 已放好。请在程序里刷新 LoRA 列表。</translation>
  </message>
  <message>
   <source>{hours} h {minutes:02d} min</source>
   <translation>{hours} 小时 {minutes:02d} 分</translation>
  </message>
  <message>
   <source>{id} is not on this disk. A run that uses it begins by downloading it.</source>
   <translation>{id} 不在本机上。使用它的训练会先下载它。</translation>
  </message>
  <message>
   <source>{id}: asking the hub…</source>
   <translation>{id}：正在询问 Hub…</translation>
  </message>
  <message>
   <source>{minutes} min</source>
   <translation>{minutes} 分钟</translation>
  </message>
  <message>
   <source>{name}: {free} of {total} free.</source>
   <translation>{name}：{total} 中剩余 {free}。</translation>
  </message>
  <message>
   <source>{optimizer} finds its own rate while training and wants 1 here.</source>
   <translation>{optimizer} 训练时自己找学习率，这里要填 1。</translation>
  </message>
  <message>
   <source>{optimizer} multiplies the rate that it finds by this curve.</source>
   <translation>{optimizer} 会把找到的学习率乘以这条曲线。</translation>
  </message>
  <message>
   <source>{optimizer} with a rate of {text}, schedule {schedule}.</source>
   <translation>{optimizer}，学习率 {text}，调度 {schedule}。</translation>
  </message>
  <message>
   <source>{optimizer} with a rate of {unet}, schedule {schedule}.</source>
   <translation>{optimizer}，学习率 {unet}，调度 {schedule}。</translation>
  </message>
  <message>
   <source>{optimizer} with rates of {unet} (UNet) and {text} (text encoder), schedule {schedule}.</source>
   <translation>{optimizer}，学习率 {unet}（UNet）和 {text}（文本编码器），调度 {schedule}。</translation>
  </message>
  <message>
   <source>{prediction}: a mark in the file says so.</source>
   <translation>{prediction}：文件里的标记这样表明。</translation>
  </message>
  <message>
   <source>{prediction}: its config says so.</source>
   <translation>{prediction}：它的配置里这样写着。</translation>
  </message>
  <message>
   <source>{prediction}: the file's metadata says so.</source>
   <translation>{prediction}：文件的元数据里这样写着。</translation>
  </message>
  <message>
   <source>{prediction}: you chose it.</source>
   <translation>{prediction}：由你选定。</translation>
  </message>
  <message>
   <source>{prediction}: {family} models do, unless they say otherwise.</source>
   <translation>{prediction}：{family} 模型没有另外注明时都是这样。</translation>
  </message>
  <message>
   <source>{program}: the file goes to {folder}.</source>
   <translation>{program}：文件会放到 {folder}。</translation>
  </message>
  <message>
   <source>{prompt}  ·  seed {seed}</source>
   <translation>{prompt}  ·  种子 {seed}</translation>
  </message>
  <message>
   <source>{seconds} s</source>
   <translation>{seconds} 秒</translation>
  </message>
  <message>
   <source>{size} a second</source>
   <translation>每秒 {size}</translation>
  </message>
  <message>
   <source>{size} are free on that disk.</source>
   <translation>该磁盘剩余 {size}。</translation>
  </message>
  <message>
   <source>{size} are to be downloaded.</source>
   <translation>需要下载 {size}。</translation>
  </message>
  <message>
   <source>{subject}: {text}</source>
   <translation>{subject}：{text}</translation>
  </message>
  <message>
   <source>{time} left</source>
   <translation>还剩 {time}</translation>
  </message>
  <message>
   <source>{tool} is still at work. If Athanor closes, its work is lost; no file is harmed.</source>
   <translation>“{tool}”还在进行。现在关闭 Athanor，这次处理会作废，但不会损坏任何文件。</translation>
  </message>
  <message>
   <source>… and {count} more files are left out.</source>
   <translation>… 还有 {count} 个文件不参加。</translation>
  </message>
 </context>
 <context>
  <name>trainer</name>
  <message>
   <source>--list says which programs are found.</source>
   <translation>--list 会列出找到的程序。</translation>
  </message>
  <message>
   <source>.caption</source>
   <translation>.caption</translation>
  </message>
  <message>
   <source>.caption, else .txt</source>
   <translation>.caption，没有则用 .txt</translation>
  </message>
  <message>
   <source>.txt</source>
   <translation>.txt</translation>
  </message>
  <message>
   <source>.txt, else .caption</source>
   <translation>.txt，没有则用 .caption</translation>
  </message>
  <message>
   <source>0 is off.</source>
   <translation>0 为关闭。</translation>
  </message>
  <message>
   <source>0 is off. Several files let you choose the best.</source>
   <translation>0 为关闭。多存几个文件，方便挑出最好的一个。</translation>
  </message>
  <message>
   <source>0 puts the LoRAs side by side: exactly their sum, and their ranks add up. Otherwise the sum is cut to this rank.</source>
   <translation>0 表示并排相加：结果正好是它们的和，秩也相加。其他数值会把和压缩到这个秩。</translation>
  </message>
  <message>
   <source>0.9 is usual (--amount 0.9).</source>
   <translation>一般用 0.9（--amount 0.9）。</translation>
  </message>
  <message>
   <source>150 tokens</source>
   <translation>150 个 token</translation>
  </message>
  <message>
   <source>16</source>
   <translation>16</translation>
  </message>
  <message>
   <source>1e-4 is usual.</source>
   <translation>一般用 1e-4。</translation>
  </message>
  <message>
   <source>2 keeps what is above half of the greatest singular value; 10 and more are usual.</source>
   <translation>2 表示保留大于最大奇异值一半的部分；一般用 10 以上。</translation>
  </message>
  <message>
   <source>20 to 30 is usual.</source>
   <translation>一般 20 到 30。</translation>
  </message>
  <message>
   <source>225 tokens</source>
   <translation>225 个 token</translation>
  </message>
  <message>
   <source>32</source>
   <translation>32</translation>
  </message>
  <message>
   <source>5e-5 is usual.</source>
   <translation>一般用 5e-5。</translation>
  </message>
  <message>
   <source>64</source>
   <translation>64</translation>
  </message>
  <message>
   <source>75 tokens</source>
   <translation>75 个 token</translation>
  </message>
  <message>
   <source>8</source>
   <translation>8</translation>
  </message>
  <message>
   <source>8 to 32 is usual.</source>
   <translation>一般 8 到 32。</translation>
  </message>
  <message>
   <source>A + (B − C) × amount: what B learnt on top of C is added to A.</source>
   <translation>A + (B − C) × 数值：把 B 相对于 C 学到的东西加到 A 上。</translation>
  </message>
  <message>
   <source>A .ckpt file has no place for metadata: its {count} entries were left out.</source>
   <translation>.ckpt 文件无处存放元数据：其中的 {count} 个条目未写入。</translation>
  </message>
  <message>
   <source>A .safetensors file.</source>
   <translation>一个 .safetensors 文件。</translation>
  </message>
  <message>
   <source>A LoRA file to go on from, made by any of the usual programs. Empty starts fresh.</source>
   <translation>在这个 LoRA 文件的基础上继续训练，常见程序做出的都可以。留空则从头开始。</translation>
  </message>
  <message>
   <source>A LoRA for a family that Athanor trains is needed here. {summary}</source>
   <translation>这里需要 Athanor 能训练的模型系列的 LoRA。{summary}</translation>
  </message>
  <message>
   <source>A LoRA is needed here. {summary}</source>
   <translation>这里需要一个 LoRA。{summary}</translation>
  </message>
  <message>
   <source>A LoRA made for {family} is needed here. {summary}</source>
   <translation>这里需要为 {family} 训练的 LoRA。{summary}</translation>
  </message>
  <message>
   <source>A VAE file or folder (or a model that has one) to put in place of the model's.</source>
   <translation>用来替换模型自带 VAE 的 VAE 文件或文件夹（也可以是带 VAE 的模型）。</translation>
  </message>
  <message>
   <source>A VAE file or folder to use in place of the model's own; empty keeps the model's.</source>
   <translation>用来代替模型自带 VAE 的 VAE 文件或文件夹；留空则用模型自带的。</translation>
  </message>
  <message>
   <source>A VAE file to put into the new model.</source>
   <translation>要放进新模型的 VAE 文件。</translation>
  </message>
  <message>
   <source>A VAE for {family} is needed here. {summary}</source>
   <translation>这里需要 {family} 的 VAE。{summary}</translation>
  </message>
  <message>
   <source>A VAE is needed here. {summary}</source>
   <translation>这里需要一个 VAE。{summary}</translation>
  </message>
  <message>
   <source>A VAE is needed, {path} has none. {reason}</source>
   <translation>需要一个 VAE，而 {path} 里没有。{reason}</translation>
  </message>
  <message>
   <source>A damaged entry of the cache is made again ({detail}).</source>
   <translation>缓存里有一项损坏，正在重新生成（{detail}）。</translation>
  </message>
  <message>
   <source>A diffusers folder cannot be made of this. {summary}</source>
   <translation>它不能转成 diffusers 文件夹。{summary}</translation>
  </message>
  <message>
   <source>A diffusers folder has no place for averaged weights (EMA): they were left out.</source>
   <translation>diffusers 文件夹无处存放平均权重（EMA）：未写入。</translation>
  </message>
  <message>
   <source>A file and a folder are needed: FILE --to FOLDER.</source>
   <translation>需要一个文件和一个文件夹：FILE --to FOLDER。</translation>
  </message>
  <message>
   <source>A file became shorter while it was read: {reason}.</source>
   <translation>读取时文件变短了：{reason}。</translation>
  </message>
  <message>
   <source>A file or folder with the text encoder of this kind of model, for a base model that has none; empty takes its own.</source>
   <translation>含有这类模型文本编码器的文件或文件夹，供自身没有文本编码器的底模使用；留空则用底模自己的。</translation>
  </message>
  <message>
   <source>A folder that is switched off stays in the list and is not trained.</source>
   <translation>关掉的文件夹仍在列表里，只是不参加训练。</translation>
  </message>
  <message>
   <source>A higher rank begins with the same effect and has room to learn; a lower one keeps what is strongest.</source>
   <translation>秩调高时效果不变，并有学习的余地；调低时保留最强的部分。</translation>
  </message>
  <message>
   <source>A model file (.safetensors, .ckpt, .pt) or a diffusers folder.</source>
   <translation>模型文件（.safetensors、.ckpt、.pt）或 diffusers 文件夹。</translation>
  </message>
  <message>
   <source>A name is needed that does not begin or end with a blank or end with a dot.</source>
   <translation>需要一个名称，首尾不能有空格，也不能以点结尾。</translation>
  </message>
  <message>
   <source>A part of the installation is missing ({reason}).</source>
   <translation>安装缺少一部分（{reason}）。</translation>
  </message>
  <message>
   <source>A snapshot lets a run go on after a power cut. One is made at each save too.</source>
   <translation>有了快照，断电之后也能接着训练。每次保存时也会做一个。</translation>
  </message>
  <message>
   <source>A text encoder for {family} is needed here. {summary}</source>
   <translation>这里需要 {family} 的文本编码器。{summary}</translation>
  </message>
  <message>
   <source>A text encoder is needed here. {summary}</source>
   <translation>这里需要文本编码器。{summary}</translation>
  </message>
  <message>
   <source>A third one: its share is added, or with “difference” B is compared with it.</source>
   <translation>第三个模型：加上它的份额；选“加差值”时，B 与它相比。</translation>
  </message>
  <message>
   <source>A {family} model is needed here. {summary}</source>
   <translation>这里需要 {family} 模型。{summary}</translation>
  </message>
  <message>
   <source>A × (1 − amount) + B × amount; with C also C × its amount.</source>
   <translation>A × (1 − 数值) + B × 数值；有 C 时再加上 C × 它的数值。</translation>
  </message>
  <message>
   <source>Above 0 the UNet's convolutions learn too (“LoCon”): textures and small shapes come closer. 4 to 16 is usual.</source>
   <translation>大于 0 时 UNet 的卷积层也参与学习（“LoCon”）：质感和小形状更接近。通常取 4 到 16。</translation>
  </message>
  <message>
   <source>Adafactor</source>
   <translation>Adafactor</translation>
  </message>
  <message>
   <source>Adafactor with relative_step sets its own rate.</source>
   <translation>Adafactor 打开 relative_step 时自己定学习率。</translation>
  </message>
  <message>
   <source>Adafactor's own relative step sets the rate.</source>
   <translation>学习率由 Adafactor 自己的相对步长决定。</translation>
  </message>
  <message>
   <source>AdamW</source>
   <translation>AdamW</translation>
  </message>
  <message>
   <source>AdamW with its memory in 8 bits: a quarter of the size, nearly the same result.</source>
   <translation>把状态存成 8 位的 AdamW：占用只有四分之一，效果几乎一样。</translation>
  </message>
  <message>
   <source>AdamW8bit</source>
   <translation>AdamW8bit</translation>
  </message>
  <message>
   <source>AdamW8bit is a good start; Prodigy finds its own rate.</source>
   <translation>先用 AdamW8bit 就好；Prodigy 会自己找学习率。</translation>
  </message>
  <message>
   <source>Add a folder with pictures.</source>
   <translation>添加一个放图片的文件夹。</translation>
  </message>
  <message>
   <source>Add at the end</source>
   <translation>加在末尾</translation>
  </message>
  <message>
   <source>Add at the front</source>
   <translation>加在开头</translation>
  </message>
  <message>
   <source>Add difference</source>
   <translation>加差值</translation>
  </message>
  <message>
   <source>Add the rating</source>
   <translation>加上分级</translation>
  </message>
  <message>
   <source>After training: {after:.0%} (at least {limit:.0%} wanted).</source>
   <translation>训练后：{after:.0%}（要求至少 {limit:.0%}）。</translation>
  </message>
  <message>
   <source>All weights are 0: nothing is left to be merged.</source>
   <translation>权重全是 0，没有可以合并的内容。</translation>
  </message>
  <message>
   <source>Alpha</source>
   <translation>Alpha</translation>
  </message>
  <message>
   <source>Alpha above the rank makes every update stronger than the learning rate says.</source>
   <translation>alpha 大于秩时，每次更新都会比学习率所写的更强。</translation>
  </message>
  <message>
   <source>Alpha of the layers of {path} is given by patterns, of which one is not read here: {pattern}.</source>
   <translation>{path} 中各层的 alpha 由匹配模式给出，其中一个在这里无法读取：{pattern}。</translation>
  </message>
  <message>
   <source>Always first</source>
   <translation>总放最前</translation>
  </message>
  <message>
   <source>Amount</source>
   <translation>数值</translation>
  </message>
  <message>
   <source>Amount of C</source>
   <translation>C 的数值</translation>
  </message>
  <message>
   <source>Amounts by block</source>
   <translation>分层数值</translation>
  </message>
  <message>
   <source>An entry cannot be called {name}.</source>
   <translation>条目不能叫 {name}。</translation>
  </message>
  <message>
   <source>An entry of the cache was deleted or damaged while the run was using it ({detail}).</source>
   <translation>缓存里的一项在训练使用时被删除或损坏（{detail}）。</translation>
  </message>
  <message>
   <source>An id is owner/name, owner/name@revision or owner/name/file.safetensors.</source>
   <translation>ID 的写法是 owner/name、owner/name@revision 或 owner/name/file.safetensors。</translation>
  </message>
  <message>
   <source>An inpainting model can be merged with others only as {first}.</source>
   <translation>重绘（inpainting）模型只能作为 {first} 与其他模型合并。</translation>
  </message>
  <message>
   <source>Arguments of the optimiser itself, one `name = value` a line, such as `weight_decay = 0.1`.</source>
   <translation>优化器自己的参数，每行一个 `名称 = 值`，例如 `weight_decay = 0.1`。</translation>
  </message>
  <message>
   <source>As in the file</source>
   <translation>按文件中的</translation>
  </message>
  <message>
   <source>As it is</source>
   <translation>保持原样</translation>
  </message>
  <message>
   <source>As sd-scripts has it; .txt is read where there is no .caption.</source>
   <translation>和 sd-scripts 一样；没有 .caption 时读 .txt。</translation>
  </message>
  <message>
   <source>As set here</source>
   <translation>按这里设定的</translation>
  </message>
  <message>
   <source>At least two LoRAs are needed to be merged.</source>
   <translation>至少要有两个 LoRA 才能合并。</translation>
  </message>
  <message>
   <source>At the end</source>
   <translation>结束时</translation>
  </message>
  <message>
   <source>At this size it is hardly needed.</source>
   <translation>在这个尺寸下基本不需要。</translation>
  </message>
  <message>
   <source>Athanor trains Stable Diffusion 1.x, 2.x and SDXL. The weights were not downloaded.</source>
   <translation>Athanor 可训练 Stable Diffusion 1.x、2.x 和 SDXL。权重没有下载。</translation>
  </message>
  <message>
   <source>Athanor's example: a LoRA learns an emblem that the embedded base model has never seen.</source>
   <translation>Athanor 的示例：用一个 LoRA 学会内置底模从没见过的徽记。</translation>
  </message>
  <message>
   <source>Attention</source>
   <translation>注意力（attention）</translation>
  </message>
  <message>
   <source>Author</source>
   <translation>作者</translation>
  </message>
  <message>
   <source>Averaged weights</source>
   <translation>平均权重（EMA）</translation>
  </message>
  <message>
   <source>Base model</source>
   <translation>底模</translation>
  </message>
  <message>
   <source>Batch size</source>
   <translation>批大小（batch size）</translation>
  </message>
  <message>
   <source>Before the first step</source>
   <translation>第一步之前</translation>
  </message>
  <message>
   <source>Begin it with https://.</source>
   <translation>请以 https:// 开头。</translation>
  </message>
  <message>
   <source>Behind transparency</source>
   <translation>透明处的底色</translation>
  </message>
  <message>
   <source>Bucket step</source>
   <translation>分桶步长</translation>
  </message>
  <message>
   <source>By the UNet's answers to a test it is a model of {kind}.</source>
   <translation>从 UNet 在测试中的回答看，这是 {kind} 模型。</translation>
  </message>
  <message>
   <source>CFG scale</source>
   <translation>CFG 强度</translation>
  </message>
  <message>
   <source>Cache limit</source>
   <translation>缓存上限</translation>
  </message>
  <message>
   <source>Cache pictures</source>
   <translation>缓存图片</translation>
  </message>
  <message>
   <source>Can be chosen as the VAE of a model.</source>
   <translation>可以选作模型的 VAE。</translation>
  </message>
  <message>
   <source>Can be trained on here.</source>
   <translation>可以用来训练。</translation>
  </message>
  <message>
   <source>Caption dropout</source>
   <translation>标注丢弃率</translation>
  </message>
  <message>
   <source>Caption files</source>
   <translation>标注文件</translation>
  </message>
  <message>
   <source>Caption length</source>
   <translation>标注长度</translation>
  </message>
  <message>
   <source>Caption prefix</source>
   <translation>标注前缀</translation>
  </message>
  <message>
   <source>Change it or the bucket step.</source>
   <translation>改它，或改分桶步长。</translation>
  </message>
  <message>
   <source>Character threshold</source>
   <translation>角色阈值</translation>
  </message>
  <message>
   <source>Characters first</source>
   <translation>角色放前面</translation>
  </message>
  <message>
   <source>Check its name (or the path, if you meant a file here). A private one needs a token: set HF_TOKEN, or save it (hf auth login).</source>
   <translation>请检查名称（如果你指的是本地文件，则检查路径）。私有模型需要 token：设置 HF_TOKEN，或用 hf auth login 保存。</translation>
  </message>
  <message>
   <source>Check that it is a file and that you may read it.</source>
   <translation>请确认它是一个文件，并且你有权读取。</translation>
  </message>
  <message>
   <source>Check that it is there, and that you may read and write it.</source>
   <translation>请确认它存在，并且你有读写权限。</translation>
  </message>
  <message>
   <source>Check that you may open the folder.</source>
   <translation>请确认你有权打开这个文件夹。</translation>
  </message>
  <message>
   <source>Check that you may read it, or move it away.</source>
   <translation>请确认你有权读取它，或者把它移走。</translation>
  </message>
  <message>
   <source>Check that you may read the file.</source>
   <translation>请确认你有权读取这个文件。</translation>
  </message>
  <message>
   <source>Check the folder's permissions and the free space, then start again: nothing is done twice.</source>
   <translation>请检查文件夹权限和剩余空间，再重新开始：已做完的不会重做。</translation>
  </message>
  <message>
   <source>Check the name and folder.</source>
   <translation>请检查名称和文件夹。</translation>
  </message>
  <message>
   <source>Check the name.</source>
   <translation>请检查名称。</translation>
  </message>
  <message>
   <source>Check the network. Where the hub is blocked, set HF_ENDPOINT to a mirror's address, or choose a model file that was downloaded in another way. What has come already is kept.</source>
   <translation>请检查网络。如果无法访问 Hub，请把 HF_ENDPOINT 设为镜像地址，或选择用其他方式下载好的模型文件。已下载的部分会保留。</translation>
  </message>
  <message>
   <source>Check the rights of the hub's cache, or have it elsewhere (HF_HOME).</source>
   <translation>请检查 Hub 缓存文件夹的权限，或把它放到别处（HF_HOME）。</translation>
  </message>
  <message>
   <source>Choose Adafactor as the optimiser, or another schedule.</source>
   <translation>请把优化器换成 Adafactor，或换一种调度方式。</translation>
  </message>
  <message>
   <source>Choose a LoRA made on a model of the same family and sizes.</source>
   <translation>请选择在同一系列、同样大小的模型上做的 LoRA。</translation>
  </message>
  <message>
   <source>Choose a LoRA made on a model of the same sizes.</source>
   <translation>请选择在同样规模的模型上训练的 LoRA。</translation>
  </message>
  <message>
   <source>Choose a VAE file beside it.</source>
   <translation>请另选一个 VAE 文件。</translation>
  </message>
  <message>
   <source>Choose a base model of Stable Diffusion 1.x, 2.x or SDXL.</source>
   <translation>请选择 Stable Diffusion 1.x、2.x 或 SDXL 的底模。</translation>
  </message>
  <message>
   <source>Choose a folder.</source>
   <translation>请选择文件夹。</translation>
  </message>
  <message>
   <source>Choose a model file or a folder.</source>
   <translation>请选择模型文件或文件夹。</translation>
  </message>
  <message>
   <source>Choose a plain name.</source>
   <translation>请用简单的名称。</translation>
  </message>
  <message>
   <source>Choose a version of the file in fp32, fp16 or bf16.</source>
   <translation>请选择 fp32、fp16 或 bf16 的版本。</translation>
  </message>
  <message>
   <source>Choose a version of the model in fp32, fp16 or bf16.</source>
   <translation>请选择 fp32、fp16 或 bf16 版本的模型。</translation>
  </message>
  <message>
   <source>Choose an ordinary version of the model (4 channels) or an inpainting version (9).</source>
   <translation>请选择普通版本（4 个通道）或局部重绘版本（9 个通道）的模型。</translation>
  </message>
  <message>
   <source>Choose another folder.</source>
   <translation>请选择另一个文件夹。</translation>
  </message>
  <message>
   <source>Choose another name or folder.</source>
   <translation>请换一个名称或文件夹。</translation>
  </message>
  <message>
   <source>Choose another name, or replace what is there.</source>
   <translation>请换个名称，或替换已有的文件。</translation>
  </message>
  <message>
   <source>Choose another name, or switch on “Overwrite” (--overwrite).</source>
   <translation>请换一个名字，或打开“覆盖”（--overwrite）。</translation>
  </message>
  <message>
   <source>Choose another name.</source>
   <translation>请换一个名字。</translation>
  </message>
  <message>
   <source>Choose another optimiser, or run the doctor (gui.sh doctor, gui.bat doctor).</source>
   <translation>请换一个优化器，或运行体检（gui.sh doctor、gui.bat doctor）。</translation>
  </message>
  <message>
   <source>Choose another output folder, or allow writing there.</source>
   <translation>请选择另一个输出文件夹，或允许在那里写入。</translation>
  </message>
  <message>
   <source>Choose another program, or a plain folder.</source>
   <translation>请选择其他程序，或一个普通文件夹。</translation>
  </message>
  <message>
   <source>Choose folders with pictures in them.</source>
   <translation>请选择里面有图片的文件夹。</translation>
  </message>
  <message>
   <source>Choose ranks by</source>
   <translation>秩的选择方式</translation>
  </message>
  <message>
   <source>Choose text encoders of the same family, in the order in which it has them.</source>
   <translation>请选择同一系列的文本编码器，顺序与该系列中的一致。</translation>
  </message>
  <message>
   <source>Choose text encoders of the same family, or none if the model has its own.</source>
   <translation>请选择同一系列的文本编码器；模型自带时就不用选。</translation>
  </message>
  <message>
   <source>Choose the device auto, or install onnxruntime-gpu or onnxruntime-directml in its place.</source>
   <translation>请把设备设为 auto，或改装 onnxruntime-gpu 或 onnxruntime-directml。</translation>
  </message>
  <message>
   <source>Choose the folder of a model of this kind.</source>
   <translation>请选择这类模型的文件夹。</translation>
  </message>
  <message>
   <source>Choose the folder of the program that draws, or a plain folder.</source>
   <translation>请选择绘图程序的文件夹，或一个普通文件夹。</translation>
  </message>
  <message>
   <source>Choose the folder that holds {model} and {labels}.</source>
   <translation>请选择放有 {model} 和 {labels} 的文件夹。</translation>
  </message>
  <message>
   <source>Choose the full version of the model, or a text encoder beside it.</source>
   <translation>请选择完整版的模型，或者另选一个文本编码器。</translation>
  </message>
  <message>
   <source>Choose the full version of the model, or text encoders beside it.</source>
   <translation>请选择完整版的模型，或者另选文本编码器。</translation>
  </message>
  <message>
   <source>Choose the other one if the previews are nothing but noise.</source>
   <translation>如果预览图全是噪点，请选择另一种。</translation>
  </message>
  <message>
   <source>Choose the schedule adafactor, or set relative_step = false.</source>
   <translation>请把调度方式设为 adafactor，或设 relative_step = false。</translation>
  </message>
  <message>
   <source>Choose the whole model.</source>
   <translation>请选择完整的模型。</translation>
  </message>
  <message>
   <source>Choose {sampler}.</source>
   <translation>请选择 {sampler}。</translation>
  </message>
  <message>
   <source>Class folders</source>
   <translation>类别图文件夹</translation>
  </message>
  <message>
   <source>Clip skip</source>
   <translation>Clip skip（跳过层）</translation>
  </message>
  <message>
   <source>Close other programs, or choose half precision for the base model.</source>
   <translation>请关闭其他程序，或选择半精度的底模。</translation>
  </message>
  <message>
   <source>Close other programs.</source>
   <translation>请关闭其他程序。</translation>
  </message>
  <message>
   <source>Close programs that have it open, or change its rights; then resume the run.</source>
   <translation>请关闭占用它的程序，或修改它的权限；然后继续训练。</translation>
  </message>
  <message>
   <source>Close programs that use these files, or give yourself the right to write there, and export again.</source>
   <translation>请关闭占用这些文件的程序，或取得那里的写入权限，然后重新导出。</translation>
  </message>
  <message>
   <source>Collects this many batches into one step: the effect of a larger batch without its memory.</source>
   <translation>攒够这么多批再更新一步：有大批量的效果，却不占那么多显存。</translation>
  </message>
  <message>
   <source>Comment</source>
   <translation>备注</translation>
  </message>
  <message>
   <source>Comparing layers</source>
   <translation>正在比较各层</translation>
  </message>
  <message>
   <source>Computes parts twice to save memory.</source>
   <translation>把一部分重算一遍，以节省显存。</translation>
  </message>
  <message>
   <source>Computes the hashes by which programs and sites know a file.</source>
   <translation>计算各种程序和网站识别文件用的哈希值。</translation>
  </message>
  <message>
   <source>Continue from</source>
   <translation>接着训练</translation>
  </message>
  <message>
   <source>Convert</source>
   <translation>转换</translation>
  </message>
  <message>
   <source>Convert it to a single file first (tools convert).</source>
   <translation>请先把它转换成单个文件（tools convert）。</translation>
  </message>
  <message>
   <source>Convolution alpha</source>
   <translation>卷积 alpha</translation>
  </message>
  <message>
   <source>Convolution rank</source>
   <translation>卷积秩（conv dim）</translation>
  </message>
  <message>
   <source>Copy it anew.</source>
   <translation>请重新复制它。</translation>
  </message>
  <message>
   <source>Copy or download it again.</source>
   <translation>请重新复制或下载。</translation>
  </message>
  <message>
   <source>Copy to</source>
   <translation>复制到</translation>
  </message>
  <message>
   <source>Copying</source>
   <translation>正在复制</translation>
  </message>
  <message>
   <source>Correct them under Optimiser, More arguments.</source>
   <translation>请在“优化器 → 更多参数”里改正。</translation>
  </message>
  <message>
   <source>Cosine several times over; with one cycle it is plain cosine.</source>
   <translation>多次余弦重启；只有一次时就是普通余弦。</translation>
  </message>
  <message>
   <source>Cuts the general tags at the largest gap between their probabilities (MCut) instead of at the threshold.</source>
   <translation>在概率落差最大处（MCut）截断普通标签，而不是用阈值。</translation>
  </message>
  <message>
   <source>Cycles</source>
   <translation>重启次数</translation>
  </message>
  <message>
   <source>DDIM</source>
   <translation>DDIM</translation>
  </message>
  <message>
   <source>DPM++ 2M Karras</source>
   <translation>DPM++ 2M Karras</translation>
  </message>
  <message>
   <source>Decoding threads</source>
   <translation>解码线程</translation>
  </message>
  <message>
   <source>Device</source>
   <translation>设备</translation>
  </message>
  <message>
   <source>Did you mean {name}?</source>
   <translation>是不是想写 {name}？</translation>
  </message>
  <message>
   <source>Download both files of the same model again.</source>
   <translation>请把同一模型的两个文件重新下载。</translation>
  </message>
  <message>
   <source>Download or copy it again.</source>
   <translation>请重新下载或复制。</translation>
  </message>
  <message>
   <source>Download the file itself from the model's page.</source>
   <translation>请从模型页面下载文件本身。</translation>
  </message>
  <message>
   <source>Download the model again.</source>
   <translation>请重新下载模型。</translation>
  </message>
  <message>
   <source>Download the model again; if its sizes are unusual, it needs its config beside it.</source>
   <translation>请重新下载模型；如果它的尺寸特殊，旁边要放它的配置文件。</translation>
  </message>
  <message>
   <source>Download {labels} from the model's page again.</source>
   <translation>请从模型页面重新下载 {labels}。</translation>
  </message>
  <message>
   <source>Drawing pictures with the LoRA, and counting what they show …</source>
   <translation>正在用 LoRA 画图，并统计画出了什么……</translation>
  </message>
  <message>
   <source>Draws after every so many epochs; 0 is off.</source>
   <translation>每隔这么多轮画一次；0 为关闭。</translation>
  </message>
  <message>
   <source>Draws after every so many steps; 0 is off.</source>
   <translation>每隔这么多步画一次；0 为关闭。</translation>
  </message>
  <message>
   <source>Draws once more when the run is done.</source>
   <translation>训练结束时再画一次。</translation>
  </message>
  <message>
   <source>Dropout</source>
   <translation>丢弃率（dropout）</translation>
  </message>
  <message>
   <source>Each is one more encoded picture in the cache.</source>
   <translation>每多一个，缓存里就多一张编码后的图片。</translation>
  </message>
  <message>
   <source>Each picture takes as long as many steps.</source>
   <translation>每张图花的时间相当于许多步。</translation>
  </message>
  <message>
   <source>Each run makes a folder of its own in here. Empty takes Athanor's own runs folder.</source>
   <translation>每次训练在这里建一个自己的文件夹。留空则用 Athanor 自己的训练文件夹。</translation>
  </message>
  <message>
   <source>Ends the caption with the most probable of general, sensitive, questionable and explicit.</source>
   <translation>在标注末尾加上 general、sensitive、questionable、explicit 中最可能的一个。</translation>
  </message>
  <message>
   <source>Ends the run after exactly this many steps, whatever the epochs. Empty goes by epochs.</source>
   <translation>不管几轮，到这么多步就结束。留空则按轮数。</translation>
  </message>
  <message>
   <source>Entries to write, each as key=value.</source>
   <translation>要写入的条目，格式为 key=value。</translation>
  </message>
  <message>
   <source>Epochs</source>
   <translation>轮数（epoch）</translation>
  </message>
  <message>
   <source>Escape brackets</source>
   <translation>转义括号</translation>
  </message>
  <message>
   <source>Euler a</source>
   <translation>Euler a</translation>
  </message>
  <message>
   <source>Evens out easy and hard noise levels so that learning is quicker. 5 is usual, 0 is off.</source>
   <translation>平衡容易和困难的噪声级别，学得更快。一般用 5，0 为关闭。</translation>
  </message>
  <message>
   <source>Every layer gets the same rank.</source>
   <translation>每一层的秩都相同。</translation>
  </message>
  <message>
   <source>Every learning rate is 0: nothing will be learnt.</source>
   <translation>所有学习率都是 0：什么也学不到。</translation>
  </message>
  <message>
   <source>Every n epochs</source>
   <translation>每 n 轮</translation>
  </message>
  <message>
   <source>Every n steps</source>
   <translation>每 n 步</translation>
  </message>
  <message>
   <source>Every tensor keeps its precision.</source>
   <translation>每个张量保持原来的精度。</translation>
  </message>
  <message>
   <source>Existing captions</source>
   <translation>已有的标注</translation>
  </message>
  <message>
   <source>Exponent of the polynomial schedule; 1 is a straight line.</source>
   <translation>多项式调度的指数；1 就是直线。</translation>
  </message>
  <message>
   <source>Exporting failed at {path}: {reason}.</source>
   <translation>导出在 {path} 处失败：{reason}。</translation>
  </message>
  <message>
   <source>Extract a LoRA</source>
   <translation>提取 LoRA</translation>
  </message>
  <message>
   <source>Failed: the LoRA did not learn what it should. {seconds:.0f} seconds.</source>
   <translation>未通过：LoRA 没有学会该学的东西。用时 {seconds:.0f} 秒。</translation>
  </message>
  <message>
   <source>Falls by a power: 1 is linear, more falls sooner.</source>
   <translation>按幂次下降：1 是直线，越大降得越早。</translation>
  </message>
  <message>
   <source>Falls in a straight line to zero.</source>
   <translation>沿直线降到零。</translation>
  </message>
  <message>
   <source>Falls slowly, then quickly, then slowly to zero. The usual choice.</source>
   <translation>先慢、后快、再慢地降到零。最常用。</translation>
  </message>
  <message>
   <source>File</source>
   <translation>文件</translation>
  </message>
  <message>
   <source>File precision</source>
   <translation>文件精度</translation>
  </message>
  <message>
   <source>Files</source>
   <translation>文件</translation>
  </message>
  <message>
   <source>Files left out: {count}, such as:
{lines}</source>
   <translation>不参加的文件：{count} 个，例如：
{lines}</translation>
  </message>
  <message>
   <source>Finds its own rate while training: leave the learning rates at 1.</source>
   <translation>训练时自己找学习率：学习率保持 1。</translation>
  </message>
  <message>
   <source>Five per cent is usual.</source>
   <translation>一般用百分之五。</translation>
  </message>
  <message>
   <source>Fixed rank</source>
   <translation>固定的秩</translation>
  </message>
  <message>
   <source>Folder</source>
   <translation>文件夹</translation>
  </message>
  <message>
   <source>Folders</source>
   <translation>文件夹</translation>
  </message>
  <message>
   <source>Folders that can't be used: {count}
{lines}</source>
   <translation>不能用的文件夹：{count} 个
{lines}</translation>
  </message>
  <message>
   <source>Folders with pictures of the class, such as `1_cat`.</source>
   <translation>放类别图的文件夹，例如 `1_cat`。</translation>
  </message>
  <message>
   <source>Folders with the pictures to learn.</source>
   <translation>放要学的图片的文件夹。</translation>
  </message>
  <message>
   <source>For a v-prediction model made so, or to be made so by a long training.</source>
   <translation>用于本来就这样训练的 v 预测模型，或想通过长时间训练变成这样的模型。</translation>
  </message>
  <message>
   <source>For training on; a diffusers folder has no place for it.</source>
   <translation>用于继续训练；diffusers 文件夹里放不下它。</translation>
  </message>
  <message>
   <source>Free some space and export again.</source>
   <translation>请腾出一些空间，再重新导出。</translation>
  </message>
  <message>
   <source>Free some space and start again.</source>
   <translation>请腾出一些空间后重新开始。</translation>
  </message>
  <message>
   <source>Free some space, or have the hub's cache on another disk (HF_HOME).</source>
   <translation>请腾出一些空间，或把 Hub 的缓存放到另一块硬盘（HF_HOME）。</translation>
  </message>
  <message>
   <source>Full precision.</source>
   <translation>全精度。</translation>
  </message>
  <message>
   <source>Full precision; the one for a CPU.</source>
   <translation>全精度；CPU 只能用它。</translation>
  </message>
  <message>
   <source>GB</source>
   <translation>GB</translation>
  </message>
  <message>
   <source>General threshold</source>
   <translation>普通标签阈值</translation>
  </message>
  <message>
   <source>Give the folder of a run.</source>
   <translation>请给出一次训练的文件夹。</translation>
  </message>
  <message>
   <source>Give the folder whose name ends in the date and time of the run.</source>
   <translation>请给出名称以训练日期和时间结尾的那个文件夹。</translation>
  </message>
  <message>
   <source>Gradient accumulation</source>
   <translation>梯度累积</translation>
  </message>
  <message>
   <source>Gradient checkpointing</source>
   <translation>梯度检查点</translation>
  </message>
  <message>
   <source>Gradient clipping</source>
   <translation>梯度裁剪</translation>
  </message>
  <message>
   <source>HF_ENDPOINT is {address}, which is no address.</source>
   <translation>HF_ENDPOINT 的值 {address} 不是一个地址。</translation>
  </message>
  <message>
   <source>Half precision for newer cards.</source>
   <translation>较新显卡的半精度。</translation>
  </message>
  <message>
   <source>Half precision with a loss scaler.</source>
   <translation>带损失缩放的半精度。</translation>
  </message>
  <message>
   <source>Half the rank is usual.</source>
   <translation>一般取秩的一半。</translation>
  </message>
  <message>
   <source>Half the size of fp32, read by every program.</source>
   <translation>大小是 fp32 的一半，所有程序都能读。</translation>
  </message>
  <message>
   <source>Half the size, for newer programs and cards; coarser, but never too small for a value.</source>
   <translation>大小减半，适合较新的程序和显卡；精细程度较低，但不会放不下数值。</translation>
  </message>
  <message>
   <source>Hashes</source>
   <translation>哈希值</translation>
  </message>
  <message>
   <source>Height</source>
   <translation>高</translation>
  </message>
  <message>
   <source>How closely the prompt is followed; 7 is usual.</source>
   <translation>跟随提示词的程度；一般用 7。</translation>
  </message>
  <message>
   <source>How each layer's new rank is chosen.</source>
   <translation>怎样选择每层的新秩。</translation>
  </message>
  <message>
   <source>How each layer's rank is chosen.</source>
   <translation>怎样选择每层的秩。</translation>
  </message>
  <message>
   <source>How many masks each picture gets: its opaque part, all of it, rectangles, brush strokes. Only an inpainting model uses them.</source>
   <translation>每张图片有多少种遮罩：它的不透明部分、整张、矩形、笔刷。只有局部重绘模型会用到。</translation>
  </message>
  <message>
   <source>How many tags at the start stay in place when shuffling; the trigger word should be among them.</source>
   <translation>打乱时开头有几个标签不动；触发词应在其中。</translation>
  </message>
  <message>
   <source>How many tokens of a caption count. Long captions need 150 or 225; the rest is cut off.</source>
   <translation>标注里有多少个 token 算数。长标注需要 150 或 225；多出的会被截掉。</translation>
  </message>
  <message>
   <source>How much the class pictures count. 1 is as much as yours; lower it if the subject comes out too weak.</source>
   <translation>类别图的分量。1 表示和你的图一样重；主体太弱就调低。</translation>
  </message>
  <message>
   <source>How often cosine_with_restarts begins anew. With one it is plain cosine.</source>
   <translation>cosine_with_restarts 重启几次。一次就是普通余弦。</translation>
  </message>
  <message>
   <source>How often each picture is shown in an epoch. Empty takes the number in the folder's name.</source>
   <translation>每轮每张图显示几次。留空则取文件夹名里的数字。</translation>
  </message>
  <message>
   <source>How often the whole set is shown. Ignored if a number of steps is set.</source>
   <translation>整套图显示几遍。设了步数时不起作用。</translation>
  </message>
  <message>
   <source>How strongly it counts, as in a prompt.</source>
   <translation>作用的强度，与提示词里的权重相同。</translation>
  </message>
  <message>
   <source>How the models are joined.</source>
   <translation>模型的合并方式。</translation>
  </message>
  <message>
   <source>If it has no text encoder, extract the UNet only.</source>
   <translation>如果它没有文本编码器，请只提取 UNet。</translation>
  </message>
  <message>
   <source>If it was moved, choose it anew; if it is on another disk or a network drive, connect that.</source>
   <translation>如果它被移动了，请重新选择；如果它在另一块磁盘或网络驱动器上，请先连接。</translation>
  </message>
  <message>
   <source>If memory is short, close other programs; with a graphics card, try the device cpu.</source>
   <translation>如果内存不够，请关闭其他程序；有显卡时可试试把设备设为 cpu。</translation>
  </message>
  <message>
   <source>If that is wrong, choose the prediction on the base model's page: the wrong one ruins the result.</source>
   <translation>如果不对，请在底模页选择预测类型：选错会毁掉结果。</translation>
  </message>
  <message>
   <source>If this stays so, delete {file}: it is made anew.</source>
   <translation>如果一直这样，请删除 {file}：它会重新生成。</translation>
  </message>
  <message>
   <source>Ignore changes below</source>
   <translation>忽略小于此值的变化</translation>
  </message>
  <message>
   <source>Images</source>
   <translation>图片</translation>
  </message>
  <message>
   <source>In {folder} there is already {names}.</source>
   <translation>{folder} 里已经有 {names}。</translation>
  </message>
  <message>
   <source>In {path}, the tensor {name} of the {part} is missing or of another size.</source>
   <translation>在 {path} 中，{part} 的张量 {name} 缺失或尺寸不对。</translation>
  </message>
  <message>
   <source>In {path}, the {part} cannot be used: {reason}.</source>
   <translation>{path} 里的 {part} 不能用：{reason}。</translation>
  </message>
  <message>
   <source>In {path}, {count} tensors of the {part} are missing, too many or of another size, for example {name}.</source>
   <translation>{path} 里的 {part} 有 {count} 个张量缺失、多余或尺寸不符，例如 {name}。</translation>
  </message>
  <message>
   <source>InstructPix2Pix</source>
   <translation>InstructPix2Pix</translation>
  </message>
  <message>
   <source>Is it a mirror of the hub (HF_ENDPOINT), or does this network want a login first?</source>
   <translation>它真的是 Hub 的镜像吗（HF_ENDPOINT）？还是这个网络需要先登录？</translation>
  </message>
  <message>
   <source>Is it a run file? Save it as UTF-8.</source>
   <translation>这是训练文件吗？请存成 UTF-8。</translation>
  </message>
  <message>
   <source>Is the disk full, write-protected or gone?</source>
   <translation>磁盘是否已满、写保护或已断开？</translation>
  </message>
  <message>
   <source>It can be used for drawing in other programs; nothing is trained on it here.</source>
   <translation>可以在其他程序里用来画图，这里不用它训练。</translation>
  </message>
  <message>
   <source>It can be used for drawing; its metadata can be read and edited here.</source>
   <translation>可以用来画图；在这里可以查看和编辑它的元数据。</translation>
  </message>
  <message>
   <source>It has {names}.</source>
   <translation>它有 {names}。</translation>
  </message>
  <message>
   <source>It is a LoRA of the kind {kind}; only plain ones (with convolutions too) can be continued.</source>
   <translation>这是 {kind} 类型的 LoRA；只有普通 LoRA（含卷积的也行）可以继续训练。</translation>
  </message>
  <message>
   <source>It is no Stable Diffusion model: it has no UNet.</source>
   <translation>它不是 Stable Diffusion 模型：没有 UNet。</translation>
  </message>
  <message>
   <source>It may be cut short or damaged: compare its size with the original's, or download it again.</source>
   <translation>可能不完整或已损坏：请和原文件比较大小，或重新下载。</translation>
  </message>
  <message>
   <source>It takes: {known}.</source>
   <translation>它接受：{known}。</translation>
  </message>
  <message>
   <source>It was made for a model of other sizes.</source>
   <translation>它是为另一种尺寸的模型做的。</translation>
  </message>
  <message>
   <source>Its rank</source>
   <translation>它的秩</translation>
  </message>
  <message>
   <source>Its run has ended; resume goes on with it.</source>
   <translation>它的训练已经结束；用 resume 可以接着来。</translation>
  </message>
  <message>
   <source>Its training went wrong before it was saved; take an earlier version of it.</source>
   <translation>它在保存之前训练就已出错；请使用更早保存的版本。</translation>
  </message>
  <message>
   <source>Keep both</source>
   <translation>两份都保留</translation>
  </message>
  <message>
   <source>Keep both files in one folder; PEFT before 0.18 computes OFT in another way.</source>
   <translation>请把两个文件放在同一文件夹；0.18 之前的 PEFT 对 OFT 的算法不同。</translation>
  </message>
  <message>
   <source>Keep first tags</source>
   <translation>保留开头标签</translation>
  </message>
  <message>
   <source>Keep shapes</source>
   <translation>保持比例</translation>
  </message>
  <message>
   <source>Keep the last n</source>
   <translation>只留最后 n 个</translation>
  </message>
  <message>
   <source>Keeps folder names, tags and author out of the file.</source>
   <translation>文件里不写文件夹名、标签和作者。</translation>
  </message>
  <message>
   <source>Keeps the encoded pictures, so that the VAE works once and not in every step.</source>
   <translation>把编码好的图片存下来，VAE 只工作一遍，不用每步都来。</translation>
  </message>
  <message>
   <source>Keeps the singular values above the greatest one divided by this (sv_ratio).</source>
   <translation>保留大于“最大奇异值 ÷ 此数”的奇异值（sv_ratio）。</translation>
  </message>
  <message>
   <source>Keeps the singular values above this.</source>
   <translation>保留大于此值的奇异值。</translation>
  </message>
  <message>
   <source>Known are LoRA (with convolutions, DoRA), LoHa, LoKr, IA3, GLoRA, OFT, BOFT and full differences.</source>
   <translation>支持 LoRA（含卷积、DoRA）、LoHa、LoKr、IA3、GLoRA、OFT、BOFT 和完整差值。</translation>
  </message>
  <message>
   <source>Largest size of the shared cache folder; the longest unused entries go first.</source>
   <translation>共用缓存文件夹的最大容量；最久没用的先删。</translation>
  </message>
  <message>
   <source>Layers whose greatest change is not above this are left out. 0 leaves out layers that are equal.</source>
   <translation>最大变化不超过此值的层会被略去。0 只略去完全相同的层。</translation>
  </message>
  <message>
   <source>Learning rate</source>
   <translation>学习率</translation>
  </message>
  <message>
   <source>Leave both empty, with a learning rate of 1.</source>
   <translation>请都留空，学习率设为 1。</translation>
  </message>
  <message>
   <source>Leave out</source>
   <translation>去掉</translation>
  </message>
  <message>
   <source>Leave out &lt; &gt; : " / \ | ? * and reserved words.</source>
   <translation>不要用 &lt; &gt; : " / \ | ? * 和系统保留的词。</translation>
  </message>
  <message>
   <source>Leave out the part behind @.</source>
   <translation>去掉 @ 后面的部分。</translation>
  </message>
  <message>
   <source>Leave private entries out</source>
   <translation>不写私人信息</translation>
  </message>
  <message>
   <source>Leave them alone</source>
   <translation>不动它们</translation>
  </message>
  <message>
   <source>Leave this empty.</source>
   <translation>请将这里留空。</translation>
  </message>
  <message>
   <source>Less memory; captions and their encodings can be cached.</source>
   <translation>占用更少；标注和它们的编码可以缓存。</translation>
  </message>
  <message>
   <source>Let it be as the model says, unless you know better.</source>
   <translation>除非你确定，否则以模型自己的说明为准。</translation>
  </message>
  <message>
   <source>Lets the model learn darker darks and brighter brights. 0 is off; 0.03 to 0.1 is usual.</source>
   <translation>让模型学到更暗的暗部和更亮的亮部。0 为关闭；一般 0.03 到 0.1。</translation>
  </message>
  <message>
   <source>Libraries have changed since the run began ({changes}).</source>
   <translation>训练开始后，有些库变了（{changes}）。</translation>
  </message>
  <message>
   <source>Like all other weights.</source>
   <translation>与其他权重一样处理。</translation>
  </message>
  <message>
   <source>Limit weight norms</source>
   <translation>限制权重范数</translation>
  </message>
  <message>
   <source>Lion</source>
   <translation>Lion</translation>
  </message>
  <message>
   <source>LoHa, LoKr, DoRA, IA3, GLoRA, OFT, full differences and biases are no products of two matrices: merge it into its model (bake) and extract a LoRA of the result (extract).</source>
   <translation>LoHa、LoKr、DoRA、IA3、GLoRA、OFT、完整差值和偏置不是两个矩阵的乘积：请先把它合并进所属的模型（bake），再从结果中提取 LoRA（extract）。</translation>
  </message>
  <message>
   <source>LoRA</source>
   <translation>LoRA</translation>
  </message>
  <message>
   <source>LoRAs</source>
   <translation>LoRA 列表</translation>
  </message>
  <message>
   <source>LoRAs can only be merged if they are made for models of the same sizes.</source>
   <translation>只有为相同尺寸的模型做的 LoRA 才能合并。</translation>
  </message>
  <message>
   <source>Longer is a little slower.</source>
   <translation>越长会稍慢一点。</translation>
  </message>
  <message>
   <source>Longest gradient allowed in a step; 0 switches clipping off.</source>
   <translation>一步里允许的最大梯度；0 为不裁剪。</translation>
  </message>
  <message>
   <source>Longest side</source>
   <translation>最长边</translation>
  </message>
  <message>
   <source>Lower it, or raise the longest side.</source>
   <translation>请调小它，或调大最长边。</translation>
  </message>
  <message>
   <source>Lower it, or raise the steps.</source>
   <translation>请调小它，或增加步数。</translation>
  </message>
  <message>
   <source>Lower the batch size (accumulation keeps its effect) or the resolution, and close other programs.</source>
   <translation>请减小批大小（用梯度累积可保持效果）或分辨率，并关闭其他程序。</translation>
  </message>
  <message>
   <source>Lower the batch size or the resolution, switch gradient checkpointing on, or close other programs.</source>
   <translation>请减小批大小或分辨率，打开梯度检查点，或关闭其他程序。</translation>
  </message>
  <message>
   <source>Lower the learning rate, or use bf16 or fp32 instead of fp16. The last snapshot and the saved files are good.</source>
   <translation>请降低学习率，或用 bf16、fp32 代替 fp16。最近的快照和已保存的文件都是好的。</translation>
  </message>
  <message>
   <source>Lower the resolution or the rank, and close other programs.</source>
   <translation>请降低分辨率或秩，并关闭其他程序。</translation>
  </message>
  <message>
   <source>Lower the resolution or the rank, train the UNet only, and close other programs.</source>
   <translation>请降低分辨率或秩，只训练 UNet，并关闭其他程序。</translation>
  </message>
  <message>
   <source>Make it shorter.</source>
   <translation>请写短一些。</translation>
  </message>
  <message>
   <source>Make room on that disk, then start again.</source>
   <translation>请在该磁盘上腾出空间，然后重新开始。</translation>
  </message>
  <message>
   <source>Make room, or write to another disk.</source>
   <translation>请腾出空间，或写到别的磁盘。</translation>
  </message>
  <message>
   <source>Make room, then resume the run; every file and snapshot saved before is whole.</source>
   <translation>请腾出空间，再继续训练；之前保存的每个文件和快照都完好。</translation>
  </message>
  <message>
   <source>Make room, then resume the run; everything saved before is whole.</source>
   <translation>请腾出空间，再继续训练；之前保存的都完好。</translation>
  </message>
  <message>
   <source>Make the previews smaller.</source>
   <translation>请把预览图改小。</translation>
  </message>
  <message>
   <source>Makes a LoRA of the difference between two models.</source>
   <translation>把两个模型之间的差别做成一个 LoRA。</translation>
  </message>
  <message>
   <source>Makes a LoRA smaller and loses as little as can be.</source>
   <translation>把 LoRA 变小，损失尽可能少。</translation>
  </message>
  <message>
   <source>Makes one LoRA of several.</source>
   <translation>把几个 LoRA 合成一个。</translation>
  </message>
  <message>
   <source>Makes one model of two or three.</source>
   <translation>把两三个模型合成一个。</translation>
  </message>
  <message>
   <source>Masks for inpainting</source>
   <translation>局部重绘的遮罩</translation>
  </message>
  <message>
   <source>Memory and file size grow in proportion.</source>
   <translation>占用和文件大小随之成比例增长。</translation>
  </message>
  <message>
   <source>Memory grows with each picture.</source>
   <translation>每多一张图，显存就多占一份。</translation>
  </message>
  <message>
   <source>Memory, time and file size; 0 leaves the convolutions as they are.</source>
   <translation>占用显存、时间和文件大小；0 表示不动卷积层。</translation>
  </message>
  <message>
   <source>Mend that line. A backslash in a path must be written twice, or use '…'.</source>
   <translation>请改好那一行。路径里的反斜杠要写两个，或者用 '…' 括起来。</translation>
  </message>
  <message>
   <source>Merge</source>
   <translation>合并</translation>
  </message>
  <message>
   <source>Merge LoRAs into a model</source>
   <translation>把 LoRA 合并进模型</translation>
  </message>
  <message>
   <source>Merge LoRAs with each other</source>
   <translation>合并 LoRA</translation>
  </message>
  <message>
   <source>Merge models</source>
   <translation>合并模型</translation>
  </message>
  <message>
   <source>Merging layers</source>
   <translation>正在合并各层</translation>
  </message>
  <message>
   <source>Metadata</source>
   <translation>元数据</translation>
  </message>
  <message>
   <source>Method</source>
   <translation>方法</translation>
  </message>
  <message>
   <source>Min-SNR gamma</source>
   <translation>Min-SNR γ 值</translation>
  </message>
  <message>
   <source>Mirror</source>
   <translation>左右翻转</translation>
  </message>
  <message>
   <source>Model</source>
   <translation>模型</translation>
  </message>
  <message>
   <source>Model A</source>
   <translation>模型 A</translation>
  </message>
  <message>
   <source>Model B</source>
   <translation>模型 B</translation>
  </message>
  <message>
   <source>Model C</source>
   <translation>模型 C</translation>
  </message>
  <message>
   <source>Model files of any kind.</source>
   <translation>任何种类的模型文件。</translation>
  </message>
  <message>
   <source>More arguments</source>
   <translation>更多参数</translation>
  </message>
  <message>
   <source>More is quicker on a large card and needs its memory.</source>
   <translation>显卡大时越多越快，也越占显存。</translation>
  </message>
  <message>
   <source>More than 1024 is rarely worth its time and memory.</source>
   <translation>超过 1024 很少值得花那些时间和显存。</translation>
  </message>
  <message>
   <source>Move it away or choose another name.</source>
   <translation>请把它移走，或换一个名称。</translation>
  </message>
  <message>
   <source>Much less memory, about a quarter more time.</source>
   <translation>显存少用很多，时间多约四分之一。</translation>
  </message>
  <message>
   <source>Name</source>
   <translation>名称</translation>
  </message>
  <message>
   <source>Name pictures, or folders with png, jpg, webp or bmp files in them.</source>
   <translation>请给出图片，或里面有 png、jpg、webp、bmp 的文件夹。</translation>
  </message>
  <message>
   <source>Names of characters stand before the general tags, where keep_tokens can protect them.</source>
   <translation>角色名放在普通标签前面，keep_tokens 才护得住。</translation>
  </message>
  <message>
   <source>Names of entries to take out; * stands for anything.</source>
   <translation>要去掉的条目名；* 代表任意内容。</translation>
  </message>
  <message>
   <source>Negative prompt</source>
   <translation>负面提示词</translation>
  </message>
  <message>
   <source>Network</source>
   <translation>网络</translation>
  </message>
  <message>
   <source>Never enlarge</source>
   <translation>不放大</translation>
  </message>
  <message>
   <source>New rank</source>
   <translation>新的秩</translation>
  </message>
  <message>
   <source>New tags follow the caption; tags it already has are not repeated.</source>
   <translation>新标签接在标注后面；已有的不重复。</translation>
  </message>
  <message>
   <source>New tags stand before the caption, without repeating its own.</source>
   <translation>新标签放在标注前面，不重复已有的。</translation>
  </message>
  <message>
   <source>No base model is chosen.</source>
   <translation>还没有选底模。</translation>
  </message>
  <message>
   <source>No bucket has a longer side.</source>
   <translation>没有哪个分桶的边比它长。</translation>
  </message>
  <message>
   <source>No bucket has a shorter side.</source>
   <translation>没有哪个分桶的边比它短。</translation>
  </message>
  <message>
   <source>No class picture can be used.</source>
   <translation>没有一张类别图能用。</translation>
  </message>
  <message>
   <source>No file can have the name {path}.</source>
   <translation>文件不能叫这个名字：{path}。</translation>
  </message>
  <message>
   <source>No folder for the run can be made in {folder} ({reason}).</source>
   <translation>无法在 {folder} 里建立训练文件夹（{reason}）。</translation>
  </message>
  <message>
   <source>No graphics card can be used for captions: the installed onnxruntime has only the CPU.</source>
   <translation>不能用显卡打标：装的 onnxruntime 只支持 CPU。</translation>
  </message>
  <message>
   <source>No picture to learn can be used.</source>
   <translation>没有一张要学的图能用。</translation>
  </message>
  <message>
   <source>No text encoder that fits this model is in {path}.</source>
   <translation>{path} 里没有适合这个模型的文本编码器。</translation>
  </message>
  <message>
   <source>No {program} answers at {address}. Press its own refresh button, or start it with {switch}.</source>
   <translation>{address} 没有 {program} 应答。请点它自己的刷新按钮，或用 {switch} 启动它。</translation>
  </message>
  <message>
   <source>No {program} answers at {address}. Press its own refresh button.</source>
   <translation>{address} 没有 {program} 应答。请点它自己的刷新按钮。</translation>
  </message>
  <message>
   <source>Nobody is at work in {folder}.</source>
   <translation>{folder} 里没有正在进行的训练。</translation>
  </message>
  <message>
   <source>Noise and loss</source>
   <translation>噪声与损失</translation>
  </message>
  <message>
   <source>Noise offset</source>
   <translation>噪声偏移</translation>
  </message>
  <message>
   <source>None of its pictures ({count}) can be used.</source>
   <translation>它的图片（{count} 张）一张也不能用。</translation>
  </message>
  <message>
   <source>None of the {count} layers of {path} has a place in the model, for example {name}.</source>
   <translation>{path} 的 {count} 层在模型里都找不到位置，例如 {name}。</translation>
  </message>
  <message>
   <source>Nothing is written.</source>
   <translation>什么也不写入磁盘。</translation>
  </message>
  <message>
   <source>Nothing of it changes at the start.</source>
   <translation>开始时它没有任何变化。</translation>
  </message>
  <message>
   <source>Nothing says whether the model predicts noise or v; the folder says {prediction}. If its pictures are noise, change prediction_type in scheduler/scheduler_config.json.</source>
   <translation>没有任何信息说明该模型预测的是噪声还是 v；文件夹中写的是 {prediction}。如果画出的图是噪点，请修改 scheduler/scheduler_config.json 中的 prediction_type。</translation>
  </message>
  <message>
   <source>Nothing was written: this only showed {count} captions.</source>
   <translation>什么也没有写：只是展示了 {count} 条标注。</translation>
  </message>
  <message>
   <source>Numbers from 0 to 1 are usual.</source>
   <translation>一般用 0 到 1 的数。</translation>
  </message>
  <message>
   <source>Numbers in the file. fp16 is half the size and works everywhere.</source>
   <translation>文件里数字的精度。fp16 只有一半大小，到处都能用。</translation>
  </message>
  <message>
   <source>Numbers used while training. fp16 suits nearly every card, bf16 newer ones (RTX 30 and later), fp32 a CPU.</source>
   <translation>训练时用的数字精度。fp16 几乎适合所有显卡，bf16 适合较新的（RTX 30 及以后），fp32 适合 CPU。</translation>
  </message>
  <message>
   <source>Of the new file; computed is in fp32.</source>
   <translation>新文件的精度；计算总是用 fp32。</translation>
  </message>
  <message>
   <source>Of the picture.</source>
   <translation>图片的尺寸。</translation>
  </message>
  <message>
   <source>Of the weights. What is no weight of the model keeps its precision.</source>
   <translation>权重的精度。不属于模型权重的内容保持原来的精度。</translation>
  </message>
  <message>
   <source>Older files of this run are deleted; 0 keeps all. The final file always stays.</source>
   <translation>这次训练的旧文件会被删除；0 为全部保留。最终文件总会留下。</translation>
  </message>
  <message>
   <source>One number of memory for each trained one. Wants a third to a tenth of AdamW's rate.</source>
   <translation>每个训练的数只多占一个数的内存。学习率要用 AdamW 的三分之一到十分之一。</translation>
  </message>
  <message>
   <source>Only pictures without a caption file get one.</source>
   <translation>只给没有标注文件的图片写标注。</translation>
  </message>
  <message>
   <source>Only show</source>
   <translation>只显示</translation>
  </message>
  <message>
   <source>Only where it is installed and a test call works.</source>
   <translation>只在装好并且试用成功时可用。</translation>
  </message>
  <message>
   <source>Open its page in a browser, accept its terms if it asks, make a token for reading, and set it as HF_TOKEN or save it (hf auth login).</source>
   <translation>在浏览器中打开它的页面，如要求则接受条款，创建一个只读 token，设为 HF_TOKEN 或用 hf auth login 保存。</translation>
  </message>
  <message>
   <source>Optimiser</source>
   <translation>优化器</translation>
  </message>
  <message>
   <source>Other VAE</source>
   <translation>另一个 VAE</translation>
  </message>
  <message>
   <source>Output</source>
   <translation>输出</translation>
  </message>
  <message>
   <source>Output folder</source>
   <translation>输出文件夹</translation>
  </message>
  <message>
   <source>Over 128 brings no gain, a larger file, and overfits sooner.</source>
   <translation>超过 128 没有好处，文件变大，还更容易过拟合。</translation>
  </message>
  <message>
   <source>Overwrite</source>
   <translation>覆盖</translation>
  </message>
  <message>
   <source>Own amounts for the UNet's blocks: a list (SD 1 and 2: 25 numbers IN00 to OUT11, or 26 with BASE in front; SDXL: 19 or 20), or names such as IN04=0.3, M00=0, OUT05=1. BASE is all that is no block.</source>
   <translation>给 UNet 各块单独的数值：一串数（SD 1 和 2：IN00 到 OUT11 共 25 个，前面加 BASE 则 26 个；SDXL：19 或 20 个），或者写名字，如 IN04=0.3, M00=0, OUT05=1。BASE 是块以外的一切。</translation>
  </message>
  <message>
   <source>Own character threshold for each picture</source>
   <translation>每张图各自的角色阈值</translation>
  </message>
  <message>
   <source>Own threshold for each picture</source>
   <translation>每张图各自的阈值</translation>
  </message>
  <message>
   <source>Parts</source>
   <translation>部分</translation>
  </message>
  <message>
   <source>Passed: it learnt the emblem and forgot nothing else. {seconds:.0f} seconds.</source>
   <translation>通过：学会了徽记，别的也没忘。用时 {seconds:.0f} 秒。</translation>
  </message>
  <message>
   <source>Pictures by prompt and step: {file}</source>
   <translation>按提示词和步数排列的图片：{file}</translation>
  </message>
  <message>
   <source>Pictures encoded at once while caching.</source>
   <translation>缓存时一次编码几张图。</translation>
  </message>
  <message>
   <source>Pictures in one step. More is smoother and faster for each picture, and makes fewer steps.</source>
   <translation>一步里的图片数。越多越平稳，每张图也更快，但步数更少。</translation>
  </message>
  <message>
   <source>Pictures less than half as large as they are trained: {count} ({names}). They will look soft.</source>
   <translation>不到训练尺寸一半的图片：{count} 张（{names}）。它们会显得模糊。</translation>
  </message>
  <message>
   <source>Pictures of this size need much memory.</source>
   <translation>这个尺寸的图片需要很多显存。</translation>
  </message>
  <message>
   <source>Pictures so long or wide that less than half of them is trained: {count} ({names}).</source>
   <translation>太长或太宽、只有不到一半会被训练的图片：{count} 张（{names}）。</translation>
  </message>
  <message>
   <source>Pictures with a shorter side are skipped and named.</source>
   <translation>短边比这更短的图片会跳过，并列出名字。</translation>
  </message>
  <message>
   <source>Plain descent with momentum. Needs a much higher rate; for experiments.</source>
   <translation>带动量的普通梯度下降。需要高得多的学习率；供实验用。</translation>
  </message>
  <message>
   <source>Power</source>
   <translation>幂次</translation>
  </message>
  <message>
   <source>Precision</source>
   <translation>精度</translation>
  </message>
  <message>
   <source>Prediction</source>
   <translation>预测类型</translation>
  </message>
  <message>
   <source>Prior loss weight</source>
   <translation>先验损失权重</translation>
  </message>
  <message>
   <source>Prodigy</source>
   <translation>Prodigy</translation>
  </message>
  <message>
   <source>Prompt</source>
   <translation>提示词</translation>
  </message>
  <message>
   <source>Prompts</source>
   <translation>提示词</translation>
  </message>
  <message>
   <source>Prompts without the trigger still right: {others:.0%} (at least {limit:.0%} wanted).</source>
   <translation>不含触发词的提示词仍然正确：{others:.0%}（要求至少 {limit:.0%}）。</translation>
  </message>
  <message>
   <source>Put in front of every caption, a trigger word for example.</source>
   <translation>加在每条标注前面，例如触发词。</translation>
  </message>
  <message>
   <source>Put in front of every caption: a trigger word, for example.</source>
   <translation>加在每条标注前面，例如触发词。</translation>
  </message>
  <message>
   <source>Put {model} and {labels} of one model into one folder: both are on the model's page, among its files.</source>
   <translation>请把同一模型的 {model} 和 {labels} 放进一个文件夹：两个都在模型页面的文件列表里。</translation>
  </message>
  <message>
   <source>Puts the comma-separated parts of a caption in a new order each time. Only for tag lists.</source>
   <translation>每次把用逗号分开的各部分换个顺序。只适合标签列表。</translation>
  </message>
  <message>
   <source>Raise the resolution if the memory allows it.</source>
   <translation>显存够用的话请提高分辨率。</translation>
  </message>
  <message>
   <source>Rank</source>
   <translation>秩（维度 dim）</translation>
  </message>
  <message>
   <source>Rank of convolutions</source>
   <translation>卷积的秩</translation>
  </message>
  <message>
   <source>Ratio to the greatest</source>
   <translation>与最大值的比</translation>
  </message>
  <message>
   <source>Reading</source>
   <translation>正在读取</translation>
  </message>
  <message>
   <source>Reading or writing failed</source>
   <translation>读写失败</translation>
  </message>
  <message>
   <source>Reads brackets in captions as prompts do: (word) counts more, [word] less, (word:1.3) just so.</source>
   <translation>像提示词那样理解标注里的括号：(word) 加强，[word] 减弱，(word:1.3) 按数值。</translation>
  </message>
  <message>
   <source>Regularisation</source>
   <translation>正则化</translation>
  </message>
  <message>
   <source>Remove</source>
   <translation>删除</translation>
  </message>
  <message>
   <source>Repair it, or take it away if the model is of the usual sizes.</source>
   <translation>请修好它；如果模型是常规尺寸，可以把它拿走。</translation>
  </message>
  <message>
   <source>Repeats</source>
   <translation>重复次数</translation>
  </message>
  <message>
   <source>Replace them</source>
   <translation>替换它们</translation>
  </message>
  <message>
   <source>Replacements</source>
   <translation>替换表</translation>
  </message>
  <message>
   <source>Replaces the output if it exists; otherwise that is refused.</source>
   <translation>输出已存在时替换它；不打开则拒绝。</translation>
  </message>
  <message>
   <source>Resize a LoRA</source>
   <translation>调整 LoRA 大小</translation>
  </message>
  <message>
   <source>Resizing layers</source>
   <translation>正在调整各层</translation>
  </message>
  <message>
   <source>Resolution</source>
   <translation>分辨率</translation>
  </message>
  <message>
   <source>Resolution is a width and a height.</source>
   <translation>分辨率是宽和高。</translation>
  </message>
  <message>
   <source>Resume the run with that version, or start a new one.</source>
   <translation>请用那个版本继续这次训练，或开始新的训练。</translation>
  </message>
  <message>
   <source>Resume the run: the entry is then made again.</source>
   <translation>请继续训练：这一项会重新生成。</translation>
  </message>
  <message>
   <source>Rises to the full rate, then stays there.</source>
   <translation>升到满值后保持不变。</translation>
  </message>
  <message>
   <source>Run git lfs pull in that folder, or download the file from the model's page.</source>
   <translation>请在那个文件夹里运行 git lfs pull，或从模型页面下载文件。</translation>
  </message>
  <message>
   <source>Run the doctor (gui.sh doctor, gui.bat doctor); it says what is wrong.</source>
   <translation>请运行体检（gui.sh doctor、gui.bat doctor）；它会说明哪里不对。</translation>
  </message>
  <message>
   <source>SDPA</source>
   <translation>SDPA</translation>
  </message>
  <message>
   <source>SDXL's second text encoder has a learning rate of its own here; empty takes the text encoder's.</source>
   <translation>SDXL 第二个文本编码器单独的学习率；留空则与文本编码器相同。</translation>
  </message>
  <message>
   <source>SDXL's two text encoders know enough, and training them needs much memory.</source>
   <translation>SDXL 的两个文本编码器懂得已经够多，训练它们又很占显存。</translation>
  </message>
  <message>
   <source>SGDNesterov</source>
   <translation>SGDNesterov</translation>
  </message>
  <message>
   <source>Sampler</source>
   <translation>采样器</translation>
  </message>
  <message>
   <source>Samples</source>
   <translation>预览</translation>
  </message>
  <message>
   <source>Save every n epochs</source>
   <translation>每 n 轮保存</translation>
  </message>
  <message>
   <source>Save every n steps</source>
   <translation>每 n 步保存</translation>
  </message>
  <message>
   <source>Save the LoRA in kohya's format, in which each layer has its own alpha.</source>
   <translation>请把该 LoRA 保存为 kohya 格式，其中每一层都有自己的 alpha。</translation>
  </message>
  <message>
   <source>Say what to draw.</source>
   <translation>请写明要画什么。</translation>
  </message>
  <message>
   <source>Says what would be written and writes nothing. With scores from an earlier run the answer comes at once.</source>
   <translation>只说会写什么，并不写入。有以前的分数时马上就有结果。</translation>
  </message>
  <message>
   <source>Scales the convolutions' update by this ÷ their rank.</source>
   <translation>卷积层的更新按此值 ÷ 卷积秩缩放。</translation>
  </message>
  <message>
   <source>Scales the update by alpha ÷ rank. Half the rank is usual; a smaller alpha needs a higher learning rate.</source>
   <translation>把更新乘以 alpha ÷ 秩。一般取秩的一半；alpha 越小，学习率要越高。</translation>
  </message>
  <message>
   <source>Schedule</source>
   <translation>调度方式</translation>
  </message>
  <message>
   <source>Scheduler</source>
   <translation>学习率调度器</translation>
  </message>
  <message>
   <source>Second separate text encoder</source>
   <translation>另选的第二个文本编码器</translation>
  </message>
  <message>
   <source>Second text encoder rate</source>
   <translation>第二个文本编码器的学习率</translation>
  </message>
  <message>
   <source>Second text encoder weight</source>
   <translation>第二文本编码器权重</translation>
  </message>
  <message>
   <source>Seed</source>
   <translation>种子</translation>
  </message>
  <message>
   <source>Separate VAE</source>
   <translation>单独的 VAE</translation>
  </message>
  <message>
   <source>Separate text encoder</source>
   <translation>另选的文本编码器</translation>
  </message>
  <message>
   <source>Set</source>
   <translation>设置</translation>
  </message>
  <message>
   <source>Set 2 or more, or cosine.</source>
   <translation>请设为 2 或更多，或改用 cosine。</translation>
  </message>
  <message>
   <source>Set it to 0.</source>
   <translation>请设为 0。</translation>
  </message>
  <message>
   <source>Set it to 1, or empty where another rate is used.</source>
   <translation>请设为 1；用另一个学习率的地方留空。</translation>
  </message>
  <message>
   <source>Set it to 1.</source>
   <translation>请设为 1。</translation>
  </message>
  <message>
   <source>Set it to at least 1.</source>
   <translation>请至少设为 1。</translation>
  </message>
  <message>
   <source>Set speed.attention to sdpa, which is as quick on today's PyTorch.</source>
   <translation>请把 speed.attention 设为 sdpa，在现在的 PyTorch 上一样快。</translation>
  </message>
  <message>
   <source>Set speed.device to one of: {known}. The launcher's doctor says more.</source>
   <translation>请把 speed.device 设为以下之一：{known}。启动器的体检（doctor）会说得更详细。</translation>
  </message>
  <message>
   <source>Set speed.precision to fp16.</source>
   <translation>请把 speed.precision 设为 fp16。</translation>
  </message>
  <message>
   <source>Set speed.precision to fp32, or train on a graphics card.</source>
   <translation>请把 speed.precision 设为 fp32，或用显卡训练。</translation>
  </message>
  <message>
   <source>Set the learning rate to 1 and leave the rates of UNet and text encoder empty.</source>
   <translation>请把学习率设为 1，UNet 和文本编码器的学习率留空。</translation>
  </message>
  <message>
   <source>Share of pictures that are shown without any caption, 0 to 0.1. Helps the model to work with weak prompts.</source>
   <translation>有多少比例的图片不带标注显示，0 到 0.1。帮助模型应付含糊的提示词。</translation>
  </message>
  <message>
   <source>Share of the length</source>
   <translation>长度的比例</translation>
  </message>
  <message>
   <source>Share of the run in which the rate rises from zero; 0.05 is five per cent.</source>
   <translation>学习率从零上升的那一段占整个训练的比例；0.05 是百分之五。</translation>
  </message>
  <message>
   <source>Share of the sum</source>
   <translation>总和的比例</translation>
  </message>
  <message>
   <source>Share of the update that is switched off at random in each step. 0 to 0.3; helps a little against overfitting.</source>
   <translation>每步随机关掉更新的比例。0 到 0.3；对过拟合略有帮助。</translation>
  </message>
  <message>
   <source>Shortest side</source>
   <translation>最短边</translation>
  </message>
  <message>
   <source>Shown by programs that read it; empty takes the name.</source>
   <translation>读取它的程序会显示；留空则用名称。</translation>
  </message>
  <message>
   <source>Shows and changes what a file says about itself.</source>
   <translation>查看和修改文件自带的说明。</translation>
  </message>
  <message>
   <source>Shows each picture mirrored half of the time. Not for asymmetric subjects.</source>
   <translation>有一半时候把图片左右翻转。不适合左右不对称的主体。</translation>
  </message>
  <message>
   <source>Shows what the base model draws.</source>
   <translation>看看底模画出什么。</translation>
  </message>
  <message>
   <source>Shrinks any layer whose update grows beyond this length; 0 is off, 1 is a usual limit.</source>
   <translation>哪一层的更新超过这个长度就缩回；0 为关闭，常用 1。</translation>
  </message>
  <message>
   <source>Shuffle tags</source>
   <translation>打乱标签</translation>
  </message>
  <message>
   <source>Sides of the buckets are multiples of this.</source>
   <translation>分桶的边长是它的倍数。</translation>
  </message>
  <message>
   <source>Size of each change. Too high burns, too low learns nothing; 1e-4 is usual for a LoRA with AdamW.</source>
   <translation>每次改动的大小。太高会烧坏，太低学不到；用 AdamW 训练 LoRA 一般 1e-4。</translation>
  </message>
  <message>
   <source>Small pictures get smaller buckets instead of being enlarged.</source>
   <translation>小图进小的分桶，而不是放大。</translation>
  </message>
  <message>
   <source>Small, removable, good with few pictures.</source>
   <translation>小巧、可拆卸，图少也行。</translation>
  </message>
  <message>
   <source>Smallest picture</source>
   <translation>最小的图片</translation>
  </message>
  <message>
   <source>Snapshot every</source>
   <translation>快照间隔</translation>
  </message>
  <message>
   <source>So much metadata ({size} MB) is not read by programs.</source>
   <translation>这么多元数据（{size} MB），程序不会读。</translation>
  </message>
  <message>
   <source>Some checkpoints hold the UNet a second time, averaged over the training (EMA).</source>
   <translation>有些模型里还有一份 UNet，是训练过程中的平均值（EMA）。</translation>
  </message>
  <message>
   <source>Spaces for underscores</source>
   <translation>下划线换成空格</translation>
  </message>
  <message>
   <source>Speed and memory</source>
   <translation>速度与显存</translation>
  </message>
  <message>
   <source>Split name (series)</source>
   <translation>拆开“名字（作品）”</translation>
  </message>
  <message>
   <source>Stable Diffusion 2.x at 768, and models that say so.</source>
   <translation>768 的 Stable Diffusion 2.x，以及自己标明如此的模型。</translation>
  </message>
  <message>
   <source>Steps</source>
   <translation>步数</translation>
  </message>
  <message>
   <source>Stopped.</source>
   <translation>已停止。</translation>
  </message>
  <message>
   <source>Stopped. Nothing was written.</source>
   <translation>已停止，没有写入任何文件。</translation>
  </message>
  <message>
   <source>Stopped: {written} captions written, {left} pictures left. Start again to go on from here.</source>
   <translation>已停止：写了 {written} 条标注，还剩 {left} 张。再次开始会从这里接着来。</translation>
  </message>
  <message>
   <source>Strip private entries</source>
   <translation>去掉隐私条目</translation>
  </message>
  <message>
   <source>Such a model needs its own tokenizer: give it as a diffusers folder.</source>
   <translation>这样的模型需要自己的分词器：请以 diffusers 文件夹给出。</translation>
  </message>
  <message>
   <source>SwarmUI wants a login; press its own refresh button.</source>
   <translation>SwarmUI 要求登录；请点它自己的刷新按钮。</translation>
  </message>
  <message>
   <source>Switch gradient checkpointing on, lower the batch size or the resolution, or close other programs.</source>
   <translation>请打开梯度检查点，减小批大小或分辨率，或关闭其他程序。</translation>
  </message>
  <message>
   <source>Switch it off, or choose v-prediction if the model is one.</source>
   <translation>请关闭它；如果模型确实是 v 预测，就选择 v 预测。</translation>
  </message>
  <message>
   <source>Switch it off.</source>
   <translation>请关闭它。</translation>
  </message>
  <message>
   <source>Tags are shuffled and none is kept in front: the trigger word gets lost.</source>
   <translation>标签会被打乱，而开头一个也不保留：触发词会丢失。</translation>
  </message>
  <message>
   <source>Tags drawn pictures with booru words (long hair, smile, outdoors). Needs a folder with {model} and {labels} of one of SmilingWolf's taggers, v2 or v3.</source>
   <translation>用 booru 标签（long hair、smile、outdoors）给绘画打标。需要一个放有 {model} 和 {labels} 的文件夹，来自 SmilingWolf 的 v2 或 v3 打标器。</translation>
  </message>
  <message>
   <source>Tags that are more probable than this are written. Lower gives more tags and more wrong ones; 0.35 is usual.</source>
   <translation>概率高于此值的标签会写入。越低标签越多，错的也越多；一般 0.35。</translation>
  </message>
  <message>
   <source>Tags that are never written. For a character LoRA: what belongs to the character, so that the trigger word learns it.</source>
   <translation>永远不写的标签。训练角色 LoRA 时：属于角色本身的特征，让触发词去学。</translation>
  </message>
  <message>
   <source>Tags to write differently, each as old = new.</source>
   <translation>要换写法的标签，每个写成“旧 = 新”。</translation>
  </message>
  <message>
   <source>Take A's</source>
   <translation>用 A 的</translation>
  </message>
  <message>
   <source>Take another version of that file.</source>
   <translation>请换用该文件的其他版本。</translation>
  </message>
  <message>
   <source>Take another version of that model.</source>
   <translation>请换用该模型的其他版本。</translation>
  </message>
  <message>
   <source>Take instead</source>
   <translation>改用它</translation>
  </message>
  <message>
   <source>Take them out of one of the folders.</source>
   <translation>请从其中一个文件夹里拿掉它们。</translation>
  </message>
  <message>
   <source>Takes out what tells of your folders, captions and name.</source>
   <translation>去掉会透露你的文件夹、标注和名字的内容。</translation>
  </message>
  <message>
   <source>Teaches words, not looks.</source>
   <translation>教词，不教样子。</translation>
  </message>
  <message>
   <source>TensorBoard log</source>
   <translation>TensorBoard 日志</translation>
  </message>
  <message>
   <source>Tensors of the kind {dtype} cannot be read.</source>
   <translation>无法读取 {dtype} 类型的张量。</translation>
  </message>
  <message>
   <source>Text encoder only</source>
   <translation>只训练文本编码器</translation>
  </message>
  <message>
   <source>Text encoder rate</source>
   <translation>文本编码器学习率</translation>
  </message>
  <message>
   <source>Text encoder weight</source>
   <translation>文本编码器权重</translation>
  </message>
  <message>
   <source>Text encoders that did not change are left out by themselves.</source>
   <translation>没有变化的文本编码器会自动略去。</translation>
  </message>
  <message>
   <source>That needs a base model. {summary}</source>
   <translation>这需要一个底模。{summary}</translation>
  </message>
  <message>
   <source>The LoRA and everything about its run: {folder}</source>
   <translation>LoRA 和这次训练的一切都在：{folder}</translation>
  </message>
  <message>
   <source>The LoRA to make smaller.</source>
   <translation>要变小的 LoRA。</translation>
  </message>
  <message>
   <source>The LoRA's file.</source>
   <translation>LoRA 的文件。</translation>
  </message>
  <message>
   <source>The LoRAs and their weights.</source>
   <translation>LoRA 和它们的权重。</translation>
  </message>
  <message>
   <source>The LoRAs are for different families ({listed}).</source>
   <translation>这些 LoRA 属于不同的模型系列（{listed}）。</translation>
  </message>
  <message>
   <source>The UNet alone</source>
   <translation>只看 UNet</translation>
  </message>
  <message>
   <source>The UNet alone saves memory and time, and costs likeness.</source>
   <translation>只训练 UNet 省显存省时间，但像的程度会差一些。</translation>
  </message>
  <message>
   <source>The UNet of {path} takes {channels} channels.</source>
   <translation>{path} 的 UNet 有 {channels} 个输入通道。</translation>
  </message>
  <message>
   <source>The UNet's answers to a test fit neither epsilon nor v-prediction.</source>
   <translation>UNet 在测试中的回答既不像 epsilon，也不像 v 预测。</translation>
  </message>
  <message>
   <source>The UNet's averaged weights were taken.</source>
   <translation>已采用 UNet 的平均权重。</translation>
  </message>
  <message>
   <source>The UNet's own learning rate; empty takes the one above.</source>
   <translation>UNet 自己的学习率；留空则用上面的。</translation>
  </message>
  <message>
   <source>The VAE {path} has other sizes than the model's: {count} tensors differ, for example {name}.</source>
   <translation>VAE {path} 的尺寸与模型的不同：有 {count} 个张量不一样，例如 {name}。</translation>
  </message>
  <message>
   <source>The VAE {path} is for another kind of model: its latents have not 4 channels.</source>
   <translation>VAE {path} 属于另一类模型：它的潜变量不是 4 通道。</translation>
  </message>
  <message>
   <source>The VAE {path} is not whole: {count} tensors of the model's are not in it, for example {name}.</source>
   <translation>VAE {path} 不完整：缺少模型中的 {count} 个张量，例如 {name}。</translation>
  </message>
  <message>
   <source>The WebUI asks for a user and password: write the address as http://user:password@host:port.</source>
   <translation>WebUI 需要用户名和密码：地址请写成 http://user:password@host:port。</translation>
  </message>
  <message>
   <source>The WebUI runs without its API, so it can not be told of the new file: start it with --api.</source>
   <translation>WebUI 没有开启 API，无法通知它有新文件：请用 --api 启动。</translation>
  </message>
  <message>
   <source>The averaged UNet takes the place of the other one.</source>
   <translation>用平均后的 UNet 代替原来的。</translation>
  </message>
  <message>
   <source>The averaged weights in {path} lack {count} of the UNet's, for example {name}.</source>
   <translation>{path} 的平均权重缺少 UNet 的 {count} 个张量，例如 {name}。</translation>
  </message>
  <message>
   <source>The cache can't be written ({detail}).</source>
   <translation>缓存写不进去（{detail}）。</translation>
  </message>
  <message>
   <source>The cache holds {size} GB, more than its limit, as running trainings need them.</source>
   <translation>缓存有 {size} GB，超过了上限，因为正在进行的训练需要它们。</translation>
  </message>
  <message>
   <source>The caption is replaced; the old one stays in captions_backup.</source>
   <translation>标注会被替换；旧的留在 captions_backup 里。</translation>
  </message>
  <message>
   <source>The caption of pictures that have no caption file. Empty takes the words in the folder's name.</source>
   <translation>没有标注文件的图片用的标注。留空则取文件夹名里的词。</translation>
  </message>
  <message>
   <source>The colour that transparent pictures are laid on.</source>
   <translation>透明图片垫底的颜色。</translation>
  </message>
  <message>
   <source>The config file {path} beside the model cannot be read: {reason}.</source>
   <translation>模型旁边的配置文件 {path} 读不了：{reason}。</translation>
  </message>
  <message>
   <source>The config of the {part} of {path} does not describe a model: {reason}.</source>
   <translation>{path} 中 {part} 的配置描述的不是模型：{reason}。</translation>
  </message>
  <message>
   <source>The curve of the learning rate.</source>
   <translation>学习率的曲线。</translation>
  </message>
  <message>
   <source>The disk is full: {file} could not be saved ({megabytes} MB free).</source>
   <translation>磁盘满了：{file} 没能保存（剩余 {megabytes} MB）。</translation>
  </message>
  <message>
   <source>The disk is full: {megabytes} MB are free at {folder}.</source>
   <translation>磁盘满了：{folder} 处剩余 {megabytes} MB。</translation>
  </message>
  <message>
   <source>The disk is full; {id} is not whole yet.</source>
   <translation>硬盘已满，{id} 还没有下载完整。</translation>
  </message>
  <message>
   <source>The disk of the cache is nearly full.</source>
   <translation>缓存所在的磁盘快满了。</translation>
  </message>
  <message>
   <source>The disk of {folder} has {free} MB free, {needed} MB are needed.</source>
   <translation>{folder} 所在的磁盘剩余 {free} MB，需要 {needed} MB。</translation>
  </message>
  <message>
   <source>The disk of {folder} is full; nothing was replaced.</source>
   <translation>{folder} 所在的磁盘满了；没有替换任何文件。</translation>
  </message>
  <message>
   <source>The embeddings in {name} were left out: {embeddings}.</source>
   <translation>{name} 里的嵌入没有带上：{embeddings}。</translation>
  </message>
  <message>
   <source>The ending of new caption files. An existing .caption file counts as a caption too.</source>
   <translation>新标注文件的扩展名。已有的 .caption 文件也算标注。</translation>
  </message>
  <message>
   <source>The ending of the caption file beside each picture.</source>
   <translation>每张图旁边标注文件的扩展名。</translation>
  </message>
  <message>
   <source>The file does not begin with its format number.</source>
   <translation>文件开头没有格式编号。</translation>
  </message>
  <message>
   <source>The file does not say whether it is an epsilon or a v-prediction model; a test tells, at the start at latest.</source>
   <translation>文件没有说明它是 epsilon 还是 v 预测模型；会测试一次，最迟在开始训练时。</translation>
  </message>
  <message>
   <source>The file gets smaller; pictures stay the same.</source>
   <translation>文件变小，画出来的图不变。</translation>
  </message>
  <message>
   <source>The file is cut short ({reason}): the download or copy is not complete. Download it again.</source>
   <translation>文件不完整（{reason}）：下载或复制没有完成。请重新下载。</translation>
  </message>
  <message>
   <source>The file is damaged or no model in spite of its name ({reason}). Download it again.</source>
   <translation>文件已损坏，或者虽叫这个名字却不是模型（{reason}）。请重新下载。</translation>
  </message>
  <message>
   <source>The file is empty: the download failed. Download it again.</source>
   <translation>文件是空的：下载失败了。请重新下载。</translation>
  </message>
  <message>
   <source>The file may be damaged or of another kind: download it again, or choose another model.</source>
   <translation>文件可能已损坏或属于别的种类：请重新下载，或选另一个模型。</translation>
  </message>
  <message>
   <source>The file of the base model does not say what it predicts. {guess}</source>
   <translation>底模文件没有说明它的预测类型。{guess}</translation>
  </message>
  <message>
   <source>The file {path} cannot be read: {reason}.</source>
   <translation>文件 {path} 读不了：{reason}。</translation>
  </message>
  <message>
   <source>The first model. What the others lack is taken from it.</source>
   <translation>第一个模型。其他模型没有的内容取自它。</translation>
  </message>
  <message>
   <source>The first text encoder is missing. Choose the model's full version, or a text encoder beside it.</source>
   <translation>缺少第一个文本编码器。请选择模型的完整版，或另选一个文本编码器。</translation>
  </message>
  <message>
   <source>The folder of the program you draw with, or any other: the final LoRA is placed where it looks for LoRAs. Empty copies nothing.</source>
   <translation>你绘图所用程序的文件夹，或任意文件夹：最终的 LoRA 会放到它读取 LoRA 的位置。留空则不复制。</translation>
  </message>
  <message>
   <source>The folder {folder} cannot be written.</source>
   <translation>文件夹 {folder} 无法写入。</translation>
  </message>
  <message>
   <source>The folder {path} is not there any more.</source>
   <translation>文件夹 {path} 已不在原处。</translation>
  </message>
  <message>
   <source>The graphics card could not be used, so the CPU computes, more slowly.</source>
   <translation>显卡用不上，改由 CPU 计算，会慢一些。</translation>
  </message>
  <message>
   <source>The last layer is right for photographic models; set 2 for most anime models.</source>
   <translation>写实模型用最后一层即可；多数动漫模型请设为 2。</translation>
  </message>
  <message>
   <source>The last lines of log.txt say where. Resume goes on from the last snapshot.</source>
   <translation>log.txt 的最后几行写着出错的地方。“继续”会从最近的快照接着训练。</translation>
  </message>
  <message>
   <source>The layer {name} has different sizes in {files} ({sizes}).</source>
   <translation>层 {name} 在 {files} 中的尺寸不同（{sizes}）。</translation>
  </message>
  <message>
   <source>The layer {name} has values that are no numbers (NaN or infinite) in one of the models.</source>
   <translation>层 {name} 在其中一个模型里含有不是数的值（NaN 或无穷大）。</translation>
  </message>
  <message>
   <source>The layer {name} of {path} ({given}) does not fit the model's weight of {shape}.</source>
   <translation>{path} 的层 {name}（{given}）与模型的权重 {shape} 不符。</translation>
  </message>
  <message>
   <source>The layer {name} of {path} holds values that are no numbers (NaN or infinite).</source>
   <translation>{path} 的层 {name} 中含有不是数的值（NaN 或无穷大）。</translation>
  </message>
  <message>
   <source>The layer {name} of {path} is damaged: it lacks {tensor}.</source>
   <translation>{path} 的层 {name} 已损坏：缺少 {tensor}。</translation>
  </message>
  <message>
   <source>The length was {before} epochs and is now {after} epochs.</source>
   <translation>长度原为 {before} 轮，现在是 {after} 轮。</translation>
  </message>
  <message>
   <source>The length was {before} steps and is now {after} epochs.</source>
   <translation>长度原为 {before} 步，现在是 {after} 轮。</translation>
  </message>
  <message>
   <source>The library of {optimizer} can not be loaded ({reason}).</source>
   <translation>{optimizer} 的库加载不了（{reason}）。</translation>
  </message>
  <message>
   <source>The loss is no longer a number at step {step}; the training has come apart.</source>
   <translation>在第 {step} 步损失不再是数字；训练已经崩了。</translation>
  </message>
  <message>
   <source>The model after it, of the same family.</source>
   <translation>训练之后的模型，要属于同一系列。</translation>
  </message>
  <message>
   <source>The model before the training.</source>
   <translation>训练之前的模型。</translation>
  </message>
  <message>
   <source>The model file {path} became shorter while it was read.</source>
   <translation>模型文件 {path} 在读取时变短了。</translation>
  </message>
  <message>
   <source>The model file {path} cannot be read: {reason}.</source>
   <translation>模型文件 {path} 读不了：{reason}。</translation>
  </message>
  <message>
   <source>The model folder has a config that cannot be read: {reason}.</source>
   <translation>模型文件夹里有一个读不了的配置：{reason}。</translation>
  </message>
  <message>
   <source>The model folder is not complete: {reason}.</source>
   <translation>模型文件夹不完整：{reason}。</translation>
  </message>
  <message>
   <source>The model gave up ({reason}).</source>
   <translation>模型运行失败（{reason}）。</translation>
  </message>
  <message>
   <source>The model is laid out as {family}, but is not whole: {reason}.</source>
   <translation>这个模型的结构是 {family}，但不完整：{reason}。</translation>
  </message>
  <message>
   <source>The model that the LoRAs are made for.</source>
   <translation>这些 LoRA 所针对的模型。</translation>
  </message>
  <message>
   <source>The model to train on: one file, a diffusers folder, or an id on the Hugging Face hub (owner/name). Stable Diffusion 1.x, 2.x or SDXL.</source>
   <translation>用来训练的底模：单个文件、diffusers 文件夹，或 Hugging Face 上的 id（owner/name）。支持 Stable Diffusion 1.x、2.x 和 SDXL。</translation>
  </message>
  <message>
   <source>The model's answers are not probabilities between 0 and 1, so they cannot be tags.</source>
   <translation>模型给出的不是 0 到 1 之间的概率，不能当作标签。</translation>
  </message>
  <message>
   <source>The model's file says both epsilon and v-prediction; {told} is taken.</source>
   <translation>模型文件既说是 epsilon，又说是 v 预测；按{told}处理。</translation>
  </message>
  <message>
   <source>The model's file says {told}.</source>
   <translation>模型文件标明的是 {told}。</translation>
  </message>
  <message>
   <source>The models are of different families ({listed}).</source>
   <translation>这些模型属于不同的系列（{listed}）。</translation>
  </message>
  <message>
   <source>The models do not differ in the {count} layers that were compared.</source>
   <translation>比较过的 {count} 层里，两个模型没有差别。</translation>
  </message>
  <message>
   <source>The models predict different things ({listed}); a mixture of them draws noise.</source>
   <translation>这些模型预测的对象不同（{listed}），混合后只会画出噪声。</translation>
  </message>
  <message>
   <source>The name is empty, or begins or ends with a blank or a dot.</source>
   <translation>名称是空的，或首尾有空格，或以点结尾。</translation>
  </message>
  <message>
   <source>The name is too long for a file name.</source>
   <translation>名称太长，不能作文件名。</translation>
  </message>
  <message>
   <source>The name may not hold &lt; &gt; : " / \ | ? * and not be longer than 200 bytes.</source>
   <translation>名称里不能有 &lt; &gt; : " / \ | ? *，也不能超过 200 字节。</translation>
  </message>
  <message>
   <source>The name of the LoRA and its files.</source>
   <translation>LoRA 和它的文件的名称。</translation>
  </message>
  <message>
   <source>The nearest that is: {near}.</source>
   <translation>最接近的是：{near}。</translation>
  </message>
  <message>
   <source>The network or the optimiser in run.toml was changed: undo that, or start a new run.</source>
   <translation>run.toml 里的网络或优化器被改过：请改回去，或开始新的训练。</translation>
  </message>
  <message>
   <source>The new LoRA, .safetensors.</source>
   <translation>新的 LoRA，.safetensors 格式。</translation>
  </message>
  <message>
   <source>The new model, .safetensors or .ckpt.</source>
   <translation>新的模型，.safetensors 或 .ckpt 格式。</translation>
  </message>
  <message>
   <source>The new preview prompts can not be used ({reason}).</source>
   <translation>新的预览提示词不能用（{reason}）。</translation>
  </message>
  <message>
   <source>The new rank, or the most that the rule may choose.</source>
   <translation>新的秩，或规则最多可选的秩。</translation>
  </message>
  <message>
   <source>The next run starts at once.</source>
   <translation>下次训练马上就能开始。</translation>
  </message>
  <message>
   <source>The noise: nearly every model.</source>
   <translation>预测噪声：几乎所有模型都是这样。</translation>
  </message>
  <message>
   <source>The number that belongs to the rule: a share from 0 to 1 (0.9 is usual), a ratio above 1, or a threshold. A fixed rank does not use it.</source>
   <translation>规则所用的数：0 到 1 的比例（一般 0.9）、大于 1 的比值，或阈值。固定的秩不用它。</translation>
  </message>
  <message>
   <source>The old ones stay.</source>
   <translation>旧的保留。</translation>
  </message>
  <message>
   <source>The other one, where SDXL's two text encoders are files apart; empty takes the model's own.</source>
   <translation>SDXL 的两个文本编码器分成两个文件时的另一个；留空则用模型自己的。</translation>
  </message>
  <message>
   <source>The output is what is read, or lies in it: {path}.</source>
   <translation>输出就是要读取的内容，或在它里面：{path}。</translation>
  </message>
  <message>
   <source>The output {path} should end in {suffixes}.</source>
   <translation>输出 {path} 的结尾应为 {suffixes}。</translation>
  </message>
  <message>
   <source>The picture's own seed.</source>
   <translation>这张图自己的种子。</translation>
  </message>
  <message>
   <source>The pictures or captions have changed since the run began.</source>
   <translation>训练开始后，图片或标注有了变化。</translation>
  </message>
  <message>
   <source>The preview {path} is not a PNG picture.</source>
   <translation>预览图 {path} 不是 PNG 图片。</translation>
  </message>
  <message>
   <source>The rank of each layer, or the most that the rule may choose.</source>
   <translation>每层的秩，或规则最多可选的秩。</translation>
  </message>
  <message>
   <source>The routine for attention. SDPA comes with PyTorch and is right for nearly everybody.</source>
   <translation>注意力的算法。SDPA 随 PyTorch 自带，几乎适合所有人。</translation>
  </message>
  <message>
   <source>The routine that draws.</source>
   <translation>画图的采样算法。</translation>
  </message>
  <message>
   <source>The rule ratio needs a number above 1, not {amount}.</source>
   <translation>规则 ratio 需要大于 1 的数，而不是 {amount}。</translation>
  </message>
  <message>
   <source>The rule threshold needs a number above 0, not {amount}.</source>
   <translation>规则 threshold 需要大于 0 的数，而不是 {amount}。</translation>
  </message>
  <message>
   <source>The rule {rule} needs a share above 0 and up to 1, not {amount}.</source>
   <translation>规则 {rule} 需要大于 0、不超过 1 的比例，而不是 {amount}。</translation>
  </message>
  <message>
   <source>The run file cannot be used ({count} problems):
{lines}</source>
   <translation>训练文件不能用（{count} 个问题）：
{lines}</translation>
  </message>
  <message>
   <source>The run goes on with it; it will differ from an unbroken one.</source>
   <translation>训练将用新的值继续；结果会与未中断的训练不同。</translation>
  </message>
  <message>
   <source>The run goes on with those of now; it will differ from an unbroken one.</source>
   <translation>训练会用现在的接着进行；结果会和没有中断的不同。</translation>
  </message>
  <message>
   <source>The run goes on; its last digits may differ from an unbroken one.</source>
   <translation>训练接着进行；最后几位数字可能和没有中断的不同。</translation>
  </message>
  <message>
   <source>The run in {folder} has made no LoRA.</source>
   <translation>{folder} 里的训练还没有产出 LoRA。</translation>
  </message>
  <message>
   <source>The run in {folder} is still at work.</source>
   <translation>{folder} 里的训练还在进行。</translation>
  </message>
  <message>
   <source>The run is set to bf16, and {card} does not have it.</source>
   <translation>训练设成了 bf16，而 {card} 不支持。</translation>
  </message>
  <message>
   <source>The run is set to fp16, and a CPU can not train in fp16.</source>
   <translation>训练设成了 fp16，而 CPU 不能用 fp16 训练。</translation>
  </message>
  <message>
   <source>The same for 3×3 convolutions; 0 leaves them out, as a plain LoRA does.</source>
   <translation>3×3 卷积的秩；0 表示不要卷积，与普通 LoRA 一样。</translation>
  </message>
  <message>
   <source>The same for 3×3 convolutions; 0 takes the rank.</source>
   <translation>3×3 卷积的秩；0 表示与上面的秩相同。</translation>
  </message>
  <message>
   <source>The same for characters, never under 0.15.</source>
   <translation>对角色也一样，但不低于 0.15。</translation>
  </message>
  <message>
   <source>The same for names of characters, which are guessed wrongly more easily; 0.85 is usual.</source>
   <translation>角色名也一样，只是更容易猜错；一般 0.85。</translation>
  </message>
  <message>
   <source>The same picture is both a training and a class picture ({count} times):
{names}</source>
   <translation>同一张图既是训练图又是类别图（{count} 次）：
{names}</translation>
  </message>
  <message>
   <source>The same rate from the first step to the last.</source>
   <translation>从第一步到最后一步学习率不变。</translation>
  </message>
  <message>
   <source>The same run file with the same seed gives the same result.</source>
   <translation>同一个训练文件、同一个种子，得到同样的结果。</translation>
  </message>
  <message>
   <source>The second model, of the same family.</source>
   <translation>第二个模型，要属于同一系列。</translation>
  </message>
  <message>
   <source>The second text encoder is missing. Choose the model's full version, or a text encoder beside it.</source>
   <translation>缺少第二个文本编码器。请选择模型的完整版，或另选一个文本编码器。</translation>
  </message>
  <message>
   <source>The share of B, or of the difference.</source>
   <translation>B 或差值所占的份额。</translation>
  </message>
  <message>
   <source>The share of C in a weighted sum of three.</source>
   <translation>三个模型加权求和时 C 的份额。</translation>
  </message>
  <message>
   <source>The shortest side is longer than the longest side.</source>
   <translation>最短边比最长边还长。</translation>
  </message>
  <message>
   <source>The smallest rank that keeps this share of each layer's length (sv_fro).</source>
   <translation>能保留每层长度这一比例的最小的秩（sv_fro）。</translation>
  </message>
  <message>
   <source>The smallest rank whose singular values make up this share of their sum (sv_cumulative; LyCORIS' quantile).</source>
   <translation>奇异值之和达到该比例所需的最小秩（sv_cumulative；LyCORIS 的 quantile）。</translation>
  </message>
  <message>
   <source>The snapshot before it is used.</source>
   <translation>改用它之前的快照。</translation>
  </message>
  <message>
   <source>The snapshot does not fit this run ({reason}).</source>
   <translation>快照和这次训练对不上（{reason}）。</translation>
  </message>
  <message>
   <source>The steady default. Two numbers of memory for each trained one.</source>
   <translation>稳妥的默认选择。每个训练的数多占两个数的内存。</translation>
  </message>
  <message>
   <source>The stored scores cannot be used ({reason}).</source>
   <translation>存下的分数不能用（{reason}）。</translation>
  </message>
  <message>
   <source>The text encoder alone</source>
   <translation>只看文本编码器</translation>
  </message>
  <message>
   <source>The text encoder helps a new word to stick.</source>
   <translation>文本编码器有助于记住新词。</translation>
  </message>
  <message>
   <source>The text encoder of {path} knows {rows} tokens, its tokenizer has {count}.</source>
   <translation>{path} 的文本编码器认识 {rows} 个 token，它的分词器有 {count} 个。</translation>
  </message>
  <message>
   <source>The text encoder's answers can not be cached.</source>
   <translation>文本编码器的结果无法缓存。</translation>
  </message>
  <message>
   <source>The text encoder's own learning rate, usually half of the UNet's or less; empty takes the one above.</source>
   <translation>文本编码器自己的学习率，通常是 UNet 的一半或更低；留空则用上面的。</translation>
  </message>
  <message>
   <source>The text encoders give {given} numbers for each token, the UNet of {path} wants {wanted}.</source>
   <translation>文本编码器每个 token 给出 {given} 个数，而 {path} 的 UNet 需要 {wanted} 个。</translation>
  </message>
  <message>
   <source>The token for the hub holds characters that no token has.</source>
   <translation>Hub 的 token 里有 token 不可能包含的字符。</translation>
  </message>
  <message>
   <source>The tool bake puts LoRAs into a model, join puts LoRAs together.</source>
   <translation>把 LoRA 合并进模型用 bake，把 LoRA 合在一起用 join。</translation>
  </message>
  <message>
   <source>The tool convert makes one of a .ckpt or .pt file.</source>
   <translation>工具 convert 可以把 .ckpt 或 .pt 文件转过来。</translation>
  </message>
  <message>
   <source>The trained model lacks {count} weights of the base model, for example {name}.</source>
   <translation>训练后的模型缺少底模的 {count} 个权重，例如 {name}。</translation>
  </message>
  <message>
   <source>The training failed ({reason}).</source>
   <translation>训练失败了（{reason}）。</translation>
  </message>
  <message>
   <source>The trigger gives the emblem in unseen surroundings: before {before:.0%} (at most {limit:.0%} wanted).</source>
   <translation>触发词在没见过的场景里画出徽记：训练前 {before:.0%}（要求不超过 {limit:.0%}）。</translation>
  </message>
  <message>
   <source>The usual choice for SD 1.x.</source>
   <translation>SD 1.x 的常用选择。</translation>
  </message>
  <message>
   <source>The usual one; .caption is read where there is no .txt.</source>
   <translation>最常用；没有 .txt 时读 .caption。</translation>
  </message>
  <message>
   <source>The weight in SDXL's second text encoder; empty takes the text encoder's.</source>
   <translation>在 SDXL 第二文本编码器里的权重；留空则与文本编码器相同。</translation>
  </message>
  <message>
   <source>The weight in the UNet; empty takes the first.</source>
   <translation>在 UNet 里的权重；留空则用第一个权重。</translation>
  </message>
  <message>
   <source>The weight in the text encoder; empty takes the first.</source>
   <translation>在文本编码器里的权重；留空则用第一个权重。</translation>
  </message>
  <message>
   <source>The weight {name} is {base} in the base model and {tuned} in the trained one.</source>
   <translation>权重 {name} 在底模里是 {base}，在训练后的模型里是 {tuned}。</translation>
  </message>
  <message>
   <source>The weight {name} of {path} holds numbers of the kind {dtype}, with which nothing can be computed.</source>
   <translation>{path} 的权重 {name} 的数值类型是 {dtype}，无法用于计算。</translation>
  </message>
  <message>
   <source>The weights of this {family} model are quantised ({kind}), for drawing alone. Choose its version in fp16, bf16 or fp32.</source>
   <translation>这个 {family} 模型的权重已量化（{kind}），只能用来画图。请选择它的 fp16、bf16 或 fp32 版本。</translation>
  </message>
  <message>
   <source>The worker could not be started ({reason}).</source>
   <translation>训练进程启动不了（{reason}）。</translation>
  </message>
  <message>
   <source>The worker of {folder} does not answer.</source>
   <translation>{folder} 的训练进程没有回应。</translation>
  </message>
  <message>
   <source>There are no averaged weights (EMA) in {path}.</source>
   <translation>{path} 里没有平均权重（EMA）。</translation>
  </message>
  <message>
   <source>There are no entries.</source>
   <translation>没有任何条目。</translation>
  </message>
  <message>
   <source>There are no pictures in the folders that were named.</source>
   <translation>所给的文件夹里没有图片。</translation>
  </message>
  <message>
   <source>There are no pictures to learn.</source>
   <translation>没有要学的图片。</translation>
  </message>
  <message>
   <source>There are no weights in this file.</source>
   <translation>这个文件里没有权重。</translation>
  </message>
  <message>
   <source>There are several models in it.</source>
   <translation>里面有多个模型。</translation>
  </message>
  <message>
   <source>There is a file or folder of this name: {path}.</source>
   <translation>已经有这个名字的文件或文件夹：{path}。</translation>
  </message>
  <message>
   <source>There is a folder of this name: {path}.</source>
   <translation>已经有这个名字的文件夹：{path}。</translation>
  </message>
  <message>
   <source>There is an amount of C, but no model C.</source>
   <translation>给了 C 的数值，却没有模型 C。</translation>
  </message>
  <message>
   <source>There is no UNet in this model.</source>
   <translation>这个模型里没有 UNet。</translation>
  </message>
  <message>
   <source>There is no UNet in {path}.</source>
   <translation>{path} 里没有 UNet。</translation>
  </message>
  <message>
   <source>There is no VAE inside this model. Choose a VAE file beside it.</source>
   <translation>这个模型里没有 VAE。请另外选一个 VAE 文件。</translation>
  </message>
  <message>
   <source>There is no VAE inside {path}.</source>
   <translation>{path} 里没有 VAE。</translation>
  </message>
  <message>
   <source>There is no block {name} in this model.</source>
   <translation>这个模型里没有块 {name}。</translation>
  </message>
  <message>
   <source>There is no device {name} that PyTorch can use.</source>
   <translation>PyTorch 没有可用的设备 {name}。</translation>
  </message>
  <message>
   <source>There is no entry {name} in the file.</source>
   <translation>文件里没有条目 {name}。</translation>
  </message>
  <message>
   <source>There is no file or folder {path}.</source>
   <translation>没有文件或文件夹 {path}。</translation>
  </message>
  <message>
   <source>There is no file {file}.</source>
   <translation>没有文件 {file}。</translation>
  </message>
  <message>
   <source>There is no file {path}.</source>
   <translation>没有文件 {path}。</translation>
  </message>
  <message>
   <source>There is no folder {folder}.</source>
   <translation>没有文件夹 {folder}。</translation>
  </message>
  <message>
   <source>There is no folder {path}.</source>
   <translation>没有文件夹 {path}。</translation>
  </message>
  <message>
   <source>There is no model in it that can be used (.safetensors, .ckpt or a diffusers folder).</source>
   <translation>里面没有可用的模型（.safetensors、.ckpt 或 diffusers 文件夹）。</translation>
  </message>
  <message>
   <source>There is no model {id} on the hub, or it is not public.</source>
   <translation>Hub 上没有模型 {id}，或者它不是公开的。</translation>
  </message>
  <message>
   <source>There is no run file {path}.</source>
   <translation>没有训练文件 {path}。</translation>
  </message>
  <message>
   <source>There is no second text encoder inside {path}.</source>
   <translation>{path} 里没有第二个文本编码器。</translation>
  </message>
  <message>
   <source>There is no text encoder in this model. Choose its full version, or a text encoder beside it.</source>
   <translation>这个模型里没有文本编码器。请选择它的完整版，或另选一个文本编码器。</translation>
  </message>
  <message>
   <source>There is no text encoder inside {path}.</source>
   <translation>{path} 里没有文本编码器。</translation>
  </message>
  <message>
   <source>There is no weight in all of these models that can be merged. {summary}</source>
   <translation>这些模型中没有可以合并的共同权重。{summary}</translation>
  </message>
  <message>
   <source>There is none before it: the run begins anew.</source>
   <translation>之前没有别的快照：训练从头开始。</translation>
  </message>
  <message>
   <source>There is not enough memory for a preview; the training goes on without it.</source>
   <translation>内存不够画预览图；训练不受影响，继续进行。</translation>
  </message>
  <message>
   <source>There is not enough memory for the model {path}.</source>
   <translation>内存不够加载模型 {path}。</translation>
  </message>
  <message>
   <source>There is not enough memory for this run.</source>
   <translation>内存不够进行这次训练。</translation>
  </message>
  <message>
   <source>There is not enough memory for this.</source>
   <translation>内存不够。</translation>
  </message>
  <message>
   <source>There was not enough memory.</source>
   <translation>内存不够。</translation>
  </message>
  <message>
   <source>These options cannot be used:
{lines}</source>
   <translation>这些选项不能用：
{lines}</translation>
  </message>
  <message>
   <source>They belong to the UNet: train the UNet and the text encoder.</source>
   <translation>它们属于 UNet：请训练 UNet 和文本编码器。</translation>
  </message>
  <message>
   <source>They belong to the text encoder: train the UNet and the text encoder.</source>
   <translation>它们属于文本编码器：请训练 UNet 和文本编码器。</translation>
  </message>
  <message>
   <source>This VAE has {channels} latent channels and belongs to another kind of model; {family} has {wanted}.</source>
   <translation>这个 VAE 有 {channels} 个潜空间通道，属于另一类模型；{family} 是 {wanted} 个。</translation>
  </message>
  <message>
   <source>This file is refused: {reason}. Choose the .safetensors version of the model.</source>
   <translation>已拒绝这个文件：{reason}。请选择该模型的 .safetensors 版本。</translation>
  </message>
  <message>
   <source>This file was made by a newer Athanor (format {number}, this one reads {newest}).</source>
   <translation>这个文件由更新版的 Athanor 生成（格式 {number}，本版只读到 {newest}）。</translation>
  </message>
  <message>
   <source>This folder has no path.</source>
   <translation>这个文件夹没有路径。</translation>
  </message>
  <message>
   <source>This folder is no diffusers model. Choose the file {file} inside it.</source>
   <translation>这个文件夹不是 diffusers 模型。请选择其中的文件 {file}。</translation>
  </message>
  <message>
   <source>This folder is not a diffusers model: it has no model_index.json. Choose a model file, or the folder above or below.</source>
   <translation>这个文件夹不是 diffusers 模型：没有 model_index.json。请选模型文件，或它的上级、下级文件夹。</translation>
  </message>
  <message>
   <source>This holds tensors, but no model that Athanor knows.</source>
   <translation>里面有张量，但不是 Athanor 认识的模型。</translation>
  </message>
  <message>
   <source>This is a ControlNet.</source>
   <translation>这是 ControlNet。</translation>
  </message>
  <message>
   <source>This is a GGUF file: quantised weights for running a model, not for training it. Choose the safetensors version.</source>
   <translation>这是 GGUF 文件：量化权重只能用来画图，不能训练。请选 safetensors 版本。</translation>
  </message>
  <message>
   <source>This is a VAE with {channels} latent channels.</source>
   <translation>这是有 {channels} 个潜空间通道的 VAE。</translation>
  </message>
  <message>
   <source>This is a diffusers folder of a kind that Athanor does not know ({name}).</source>
   <translation>这是 Athanor 不认识的一种 diffusers 文件夹（{name}）。</translation>
  </message>
  <message>
   <source>This is a folder inside a diffusers model. Choose the folder above it.</source>
   <translation>这是 diffusers 模型内部的文件夹。请选择它的上一级文件夹。</translation>
  </message>
  <message>
   <source>This is a hypernetwork.</source>
   <translation>这是超网络（hypernetwork）。</translation>
  </message>
  <message>
   <source>This is a packed archive. Unpack it first and choose the model inside.</source>
   <translation>这是压缩包。请先解压，再选里面的模型。</translation>
  </message>
  <message>
   <source>This is a picture, not a model.</source>
   <translation>这是图片，不是模型。</translation>
  </message>
  <message>
   <source>This is a special version of {family} ({what}; {channels} input channels). Choose the ordinary version: a LoRA made on that one works on both.</source>
   <translation>这是 {family} 的特殊版本（{what}；{channels} 个输入通道）。请选择普通版本：用它训练的 LoRA 两者都能用。</translation>
  </message>
  <message>
   <source>This is a text encoder alone ({name}).</source>
   <translation>这是单独的文本编码器（{name}）。</translation>
  </message>
  <message>
   <source>This is a text encoder alone.</source>
   <translation>这是单独的文本编码器。</translation>
  </message>
  <message>
   <source>This is a text saved under a model's name: “{text}”. Download the model again.</source>
   <translation>这是以模型名保存的一段文字：“{text}”。请重新下载模型。</translation>
  </message>
  <message>
   <source>This is a web page saved under a model's name: the download asked for a login or a confirmation. Download it again in a browser.</source>
   <translation>这是以模型名字存下来的网页：下载时要求登录或确认。请用浏览器重新下载。</translation>
  </message>
  <message>
   <source>This is a {family} model. Athanor trains Stable Diffusion 1.x, 2.x and SDXL.</source>
   <translation>这是 {family} 模型。Athanor 可以训练 Stable Diffusion 1.x、2.x 和 SDXL。</translation>
  </message>
  <message>
   <source>This is a {method} for {family}.</source>
   <translation>这是用于 {family} 的 {method}。</translation>
  </message>
  <message>
   <source>This is a {method}.</source>
   <translation>这是 {method}。</translation>
  </message>
  <message>
   <source>This is an add-on for drawing ({name}).</source>
   <translation>这是画图用的附加模型（{name}）。</translation>
  </message>
  <message>
   <source>This is an aesthetic embedding.</source>
   <translation>这是美学嵌入（aesthetic embedding）。</translation>
  </message>
  <message>
   <source>This is an embedding (textual inversion) of {count} vectors for {family}.</source>
   <translation>这是用于 {family} 的嵌入（textual inversion），共 {count} 个向量。</translation>
  </message>
  <message>
   <source>This is an embedding (textual inversion) of {count} vectors.</source>
   <translation>这是嵌入（textual inversion），共 {count} 个向量。</translation>
  </message>
  <message>
   <source>This is an upscaler.</source>
   <translation>这是放大模型。</translation>
  </message>
  <message>
   <source>This is not a model file that Athanor knows. Models are .safetensors, .ckpt, .pt or .bin files, or diffusers folders.</source>
   <translation>这不是 Athanor 认识的模型文件。模型是 .safetensors、.ckpt、.pt、.bin 文件，或 diffusers 文件夹。</translation>
  </message>
  <message>
   <source>This is one part of a diffusers folder ({name}).</source>
   <translation>这是 diffusers 文件夹的一个部件（{name}）。</translation>
  </message>
  <message>
   <source>This is one part of a diffusers folder ({name}, {family}).</source>
   <translation>这是 diffusers 文件夹的一个部件（{name}，{family}）。</translation>
  </message>
  <message>
   <source>This is only a Git LFS pointer, a note of a hundred bytes in place of the model: the real file was not downloaded. Fetch it with `git lfs pull` or from the model's page.</source>
   <translation>这只是 Git LFS 的指针，一百来字节的便条，真正的模型没有下载。请用 `git lfs pull` 获取，或从模型页面下载。</translation>
  </message>
  <message>
   <source>This is the SDXL refiner, which only finishes what SDXL has drawn. Train on an SDXL base model: its LoRAs are used before the refiner.</source>
   <translation>这是 SDXL 的 refiner，只负责给 SDXL 画好的图收尾。请用 SDXL 底模训练：它的 LoRA 在 refiner 之前使用。</translation>
  </message>
  <message>
   <source>This is the hub's store of a model. Choose the folder with model_index.json under snapshots.</source>
   <translation>这是 hub 缓存模型的文件夹。请选择 snapshots 下面有 model_index.json 的那个文件夹。</translation>
  </message>
  <message>
   <source>This is the index of a diffusers folder. Choose the folder that it lies in.</source>
   <translation>这是 diffusers 文件夹的索引。请选择它所在的文件夹。</translation>
  </message>
  <message>
   <source>This is too long; at most {limit} characters.</source>
   <translation>太长了；最多 {limit} 个字符。</translation>
  </message>
  <message>
   <source>This is {name}, no model that draws.</source>
   <translation>这是 {name}，不是画图用的模型。</translation>
  </message>
  <message>
   <source>This model predicts in another way ({kind}). Athanor trains on epsilon and v-prediction models.</source>
   <translation>这个模型的预测方式不同（{kind}）。Athanor 只在 epsilon 和 v 预测模型上训练。</translation>
  </message>
  <message>
   <source>This model was made at {native} × {native}; at smaller sizes it learns blur.</source>
   <translation>这个模型是在 {native} × {native} 下训练的；尺寸更小只会学到模糊。</translation>
  </message>
  <message>
   <source>This prompt is empty.</source>
   <translation>这条提示词是空的。</translation>
  </message>
  <message>
   <source>This rate is so high that pictures usually burn.</source>
   <translation>学习率这么高，画面通常会烧坏。</translation>
  </message>
  <message>
   <source>This rate is too high for Lion.</source>
   <translation>这个学习率对 Lion 来说太高。</translation>
  </message>
  <message>
   <source>This schedule only works with Adafactor and relative_step.</source>
   <translation>这种调度只能和打开 relative_step 的 Adafactor 一起用。</translation>
  </message>
  <message>
   <source>Threads that read pictures ahead of the VAE.</source>
   <translation>在 VAE 之前预先读图的线程数。</translation>
  </message>
  <message>
   <source>Threshold</source>
   <translation>阈值</translation>
  </message>
  <message>
   <source>Title</source>
   <translation>标题</translation>
  </message>
  <message>
   <source>To add a difference three models are needed: A + (B − C) × amount.</source>
   <translation>加差值需要三个模型：A + (B − C) × 数值。</translation>
  </message>
  <message>
   <source>Train</source>
   <translation>训练部分</translation>
  </message>
  <message>
   <source>Trained model</source>
   <translation>训练后的模型</translation>
  </message>
  <message>
   <source>Training</source>
   <translation>训练</translation>
  </message>
  <message>
   <source>Training can go on from it; the tools can join, resize or bake it.</source>
   <translation>可以在它的基础上继续训练；工具可以合并它、调整它的秩，或把它并入底模。</translation>
  </message>
  <message>
   <source>Training cannot go on from {path}: {count} of its {total} layers have no place in this run, for example {name}.</source>
   <translation>无法从 {path} 接着训练：它的 {total} 层中有 {count} 层在这次训练里没有位置，例如 {name}。</translation>
  </message>
  <message>
   <source>Training cannot go on from {path}: {problem}</source>
   <translation>无法从 {path} 接着训练：{problem}</translation>
  </message>
  <message>
   <source>Training cannot go on from {path}: {reason}.</source>
   <translation>无法从 {path} 接着训练：{reason}。</translation>
  </message>
  <message>
   <source>Training from {file}, as any other run.</source>
   <translation>按 {file} 训练，和其他训练一样。</translation>
  </message>
  <message>
   <source>Trains portrait and landscape pictures in their own shape (aspect-ratio buckets) instead of cropping them.</source>
   <translation>竖图横图各按自己的比例训练（长宽比分桶），而不是裁剪。</translation>
  </message>
  <message>
   <source>Try again in a moment.</source>
   <translation>请稍后再试。</translation>
  </message>
  <message>
   <source>Try again later; what has come already is kept.</source>
   <translation>请稍后再试，已下载的部分会保留。</translation>
  </message>
  <message>
   <source>Twice the side is four times the work and memory.</source>
   <translation>边长加倍，计算和显存就是四倍。</translation>
  </message>
  <message>
   <source>UNet and text encoder</source>
   <translation>UNet 和文本编码器</translation>
  </message>
  <message>
   <source>UNet only</source>
   <translation>只训练 UNet</translation>
  </message>
  <message>
   <source>UNet rate</source>
   <translation>UNet 学习率</translation>
  </message>
  <message>
   <source>UNet weight</source>
   <translation>UNet 权重</translation>
  </message>
  <message>
   <source>Unchanged.</source>
   <translation>保持不变。</translation>
  </message>
  <message>
   <source>Undesired tags</source>
   <translation>不要的标签</translation>
  </message>
  <message>
   <source>Unset HF_HUB_OFFLINE, or choose a model file.</source>
   <translation>请取消 HF_HUB_OFFLINE，或选择一个模型文件。</translation>
  </message>
  <message>
   <source>Update Athanor.</source>
   <translation>请更新 Athanor。</translation>
  </message>
  <message>
   <source>Use</source>
   <translation>使用</translation>
  </message>
  <message>
   <source>Usual for a LoRA with AdamW.</source>
   <translation>用 AdamW 训练 LoRA 的常用值。</translation>
  </message>
  <message>
   <source>VAE</source>
   <translation>VAE</translation>
  </message>
  <message>
   <source>VAE batch</source>
   <translation>VAE 批大小</translation>
  </message>
  <message>
   <source>Very little memory. With relative_step it sets its own rate (schedule: adafactor).</source>
   <translation>占用极少。打开 relative_step 时自己定学习率（调度方式：adafactor）。</translation>
  </message>
  <message>
   <source>WD tagger</source>
   <translation>WD 打标器</translation>
  </message>
  <message>
   <source>Warm-up</source>
   <translation>预热（warm-up）</translation>
  </message>
  <message>
   <source>Warm-up as a number of steps; empty goes by the share above.</source>
   <translation>以步数表示的预热；留空则按上面的比例。</translation>
  </message>
  <message>
   <source>Warm-up steps</source>
   <translation>预热步数</translation>
  </message>
  <message>
   <source>Warm-up takes more than a tenth of the run.</source>
   <translation>预热超过了整个训练的十分之一。</translation>
  </message>
  <message>
   <source>Watch it in the window, or stop it first.</source>
   <translation>请在窗口里看它，或先停掉它。</translation>
  </message>
  <message>
   <source>Weight</source>
   <translation>权重</translation>
  </message>
  <message>
   <source>Weighted captions</source>
   <translation>带权重的标注</translation>
  </message>
  <message>
   <source>Weighted sum</source>
   <translation>加权求和</translation>
  </message>
  <message>
   <source>What a LoRA for this model is called is not known. {summary}</source>
   <translation>不清楚这种模型的 LoRA 各层叫什么。{summary}</translation>
  </message>
  <message>
   <source>What computes: cpu, or a graphics card (auto, cuda:0), which is several times as fast.</source>
   <translation>用什么计算：cpu，或快好几倍的显卡（auto、cuda:0）。</translation>
  </message>
  <message>
   <source>What happens to a picture that has a caption already. Whatever changes a caption copies it first to captions_backup beside the pictures.</source>
   <translation>已有标注的图片怎么办。凡是改动标注，都会先把原文复制到图片旁的 captions_backup。</translation>
  </message>
  <message>
   <source>What happens with the VAEs inside the models. Mixing different ones makes pictures pale.</source>
   <translation>模型里的 VAE 怎么处理。混合不同的 VAE 会让画面发灰。</translation>
  </message>
  <message>
   <source>What is trained. A LoRA is a small file that changes the base model while it is loaded.</source>
   <translation>训练的是什么。LoRA 是一个小文件，加载时改变底模。</translation>
  </message>
  <message>
   <source>What its file says; a Stable Diffusion 2.x that says nothing is tested.</source>
   <translation>以文件的说明为准；没有说明的 Stable Diffusion 2.x 会先测试。</translation>
  </message>
  <message>
   <source>What the model was made to tell: the noise, or v, a mixture of noise and picture. A wrong choice ruins it.</source>
   <translation>模型被训练来回答什么：噪声，或者 v（噪声与画面的混合）。选错会毁掉结果。</translation>
  </message>
  <message>
   <source>What to avoid.</source>
   <translation>要避免什么。</translation>
  </message>
  <message>
   <source>What to draw as a preview. Have one without the trigger word, to see whether it bleeds into everything.</source>
   <translation>预览时画什么。留一条不含触发词的，看它有没有渗进所有画面。</translation>
  </message>
  <message>
   <source>What to draw.</source>
   <translation>要画什么。</translation>
  </message>
  <message>
   <source>Where the pictures are. They are only read, never changed.</source>
   <translation>图片在哪里。只读取，绝不改动。</translation>
  </message>
  <message>
   <source>Where to look for differences.</source>
   <translation>在哪些部分里找差别。</translation>
  </message>
  <message>
   <source>Where to train: auto takes the first graphics card, else the CPU; or a card by its name.</source>
   <translation>在哪里训练：auto 用第一块显卡，没有就用 CPU；也可以写显卡的名称。</translation>
  </message>
  <message>
   <source>Where to write the changed file; empty changes the file itself.</source>
   <translation>修改后的文件写到哪里；留空则直接改原文件。</translation>
  </message>
  <message>
   <source>Where to write. A name that ends in neither .safetensors nor .ckpt becomes a diffusers folder.</source>
   <translation>写到哪里。结尾既不是 .safetensors 也不是 .ckpt 的名字会成为 diffusers 文件夹。</translation>
  </message>
  <message>
   <source>Whether the LoRA that is continued keeps its rank and alpha, or gets those set here.</source>
   <translation>继续训练的 LoRA 是保持自己的秩和 alpha，还是改用这里设定的。</translation>
  </message>
  <message>
   <source>Whether the noisiest step holds nothing of the picture: true darks and brights, for v-prediction models only.</source>
   <translation>最嘈杂的一步是否完全不含画面：能画出真正的暗和亮，仅用于 v 预测模型。</translation>
  </message>
  <message>
   <source>Which of the text encoder's last layers is used: 2 for most anime models, 1 for photographic ones. SD 2.x and SDXL have a layer of their own and take only 1.</source>
   <translation>使用文本编码器倒数第几层：多数动漫模型用 2，写实模型用 1。SD 2.x 和 SDXL 有固定的层，只能用 1。</translation>
  </message>
  <message>
   <source>Which parts learn. The text encoder helps a new word to stick; without it a run needs less memory.</source>
   <translation>哪些部分在学。文本编码器帮助记住新词；不训练它，显存用得更少。</translation>
  </message>
  <message>
   <source>Width</source>
   <translation>宽</translation>
  </message>
  <message>
   <source>Width and height that pictures are scaled to cover. 512 is native for SD 1.x, 768 for the v-prediction models of SD 2.x, 1024 for SDXL; multiples of 64.</source>
   <translation>图片缩放后要覆盖的宽和高。SD 1.x 原生为 512，SD 2.x 的 v 预测模型为 768，SDXL 为 1024；取 64 的倍数。</translation>
  </message>
  <message>
   <source>Width of the update. More learns more detail, weighs more and overfits sooner; 8 to 32 is usual.</source>
   <translation>更新的宽度。越大学到的细节越多，文件越大，也越早过拟合；一般 8 到 32。</translation>
  </message>
  <message>
   <source>Windows keeps the name {name} for itself.</source>
   <translation>Windows 保留了 {name} 这个名称。</translation>
  </message>
  <message>
   <source>With one cycle this is plain cosine.</source>
   <translation>只有一次时就是普通余弦。</translation>
  </message>
  <message>
   <source>With zero terminal SNR a noise offset is not needed, and makes pictures too dark or too bright.</source>
   <translation>有了零终端信噪比就不需要噪声偏移，再加会让画面过暗或过亮。</translation>
  </message>
  <message>
   <source>With zero terminal SNR the model learns true darks and brights by itself.</source>
   <translation>有了零终端信噪比，模型自己就能学会真正的暗和亮。</translation>
  </message>
  <message>
   <source>With zero terminal SNR {sampler} spends most steps on pure noise, and its pictures are coarse.</source>
   <translation>在零终端信噪比下，{sampler} 把大部分步数花在纯噪声上，画出的图很粗糙。</translation>
  </message>
  <message>
   <source>Words</source>
   <translation>词</translation>
  </message>
  <message>
   <source>Write #ffffff for white.</source>
   <translation>白色写 #ffffff。</translation>
  </message>
  <message>
   <source>Write .safetensors, or choose a precision.</source>
   <translation>请写成 .safetensors，或选择一种精度。</translation>
  </message>
  <message>
   <source>Write [512, 512] for example.</source>
   <translation>例如写 [512, 512]。</translation>
  </message>
  <message>
   <source>Write bf16 or fp32.</source>
   <translation>请写成 bf16 或 fp32。</translation>
  </message>
  <message>
   <source>Write format = {newest} in its first line.</source>
   <translation>请在第一行写 format = {newest}。</translation>
  </message>
  <message>
   <source>Write it without quotes.</source>
   <translation>请去掉引号。</translation>
  </message>
  <message>
   <source>Write the file you want behind the id, after a slash: {files}.</source>
   <translation>请在 ID 后面加斜杠，写上想要的文件：{files}。</translation>
  </message>
  <message>
   <source>Writes \( and \) for brackets, as prompts of the WebUI need it. Captions for training need it off.</source>
   <translation>括号写成 \( 和 \)，供 WebUI 的提示词使用。训练用的标注要关掉它。</translation>
  </message>
  <message>
   <source>Writes a log for TensorBoard beside the run's own.</source>
   <translation>在训练自己的日志之外再写一份 TensorBoard 日志。</translation>
  </message>
  <message>
   <source>Writes a model in another format or precision, without its averaged weights, or with another VAE.</source>
   <translation>把模型写成另一种格式或精度，去掉平均权重，或换一个 VAE。</translation>
  </message>
  <message>
   <source>Writes a model that has LoRAs built in.</source>
   <translation>写出内含 LoRA 的模型。</translation>
  </message>
  <message>
   <source>Writes long hair for long_hair, as most guides do. Faces such as ^_^ keep theirs.</source>
   <translation>把 long_hair 写成 long hair，大多数教程都这样。^_^ 之类的颜文字保持原样。</translation>
  </message>
  <message>
   <source>Writes name, series for name (series).</source>
   <translation>把 name (series) 写成 name, series。</translation>
  </message>
  <message>
   <source>Writing</source>
   <translation>正在写入</translation>
  </message>
  <message>
   <source>Written into the file if you wish.</source>
   <translation>愿意的话会写进文件。</translation>
  </message>
  <message>
   <source>Your token does not open {id}, or there is no such model.</source>
   <translation>你的 token 打不开 {id}，或者没有这个模型。</translation>
  </message>
  <message>
   <source>Zero terminal SNR</source>
   <translation>零终端信噪比（zero terminal SNR）</translation>
  </message>
  <message>
   <source>Zero terminal SNR is for v-prediction models, and this one predicts epsilon.</source>
   <translation>零终端信噪比用于 v 预测模型，而这个模型预测的是 epsilon。</translation>
  </message>
  <message>
   <source>Zero terminal SNR is switched on, and this model predicts epsilon: pure noise tells it nothing.</source>
   <translation>已打开零终端信噪比，但这个模型预测的是 epsilon：纯噪声对它没有任何信息。</translation>
  </message>
  <message>
   <source>a finite number</source>
   <translation>有限的数字</translation>
  </message>
  <message>
   <source>a known method</source>
   <translation>已知的方法</translation>
  </message>
  <message>
   <source>a list</source>
   <translation>列表</translation>
  </message>
  <message>
   <source>a number</source>
   <translation>数字</translation>
  </message>
  <message>
   <source>a table of name = value</source>
   <translation>“名称 = 值”的表</translation>
  </message>
  <message>
   <source>a table of settings</source>
   <translation>设置表</translation>
  </message>
  <message>
   <source>a whole number</source>
   <translation>整数</translation>
  </message>
  <message>
   <source>adafactor</source>
   <translation>adafactor</translation>
  </message>
  <message>
   <source>an upscaler</source>
   <translation>放大模型</translation>
  </message>
  <message>
   <source>as the model says</source>
   <translation>以模型的说明为准</translation>
  </message>
  <message>
   <source>bf16</source>
   <translation>bf16</translation>
  </message>
  <message>
   <source>constant</source>
   <translation>constant</translation>
  </message>
  <message>
   <source>constant_with_warmup</source>
   <translation>constant_with_warmup</translation>
  </message>
  <message>
   <source>cosine</source>
   <translation>cosine</translation>
  </message>
  <message>
   <source>cosine_with_restarts</source>
   <translation>cosine_with_restarts</translation>
  </message>
  <message>
   <source>empty</source>
   <translation>空</translation>
  </message>
  <message>
   <source>ends within its header</source>
   <translation>在文件头中间就断了</translation>
  </message>
  <message>
   <source>epsilon</source>
   <translation>epsilon</translation>
  </message>
  <message>
   <source>fp16</source>
   <translation>fp16</translation>
  </message>
  <message>
   <source>fp32</source>
   <translation>fp32</translation>
  </message>
  <message>
   <source>fp32 takes twice the memory and time.</source>
   <translation>fp32 要用两倍的显存和时间。</translation>
  </message>
  <message>
   <source>in memory</source>
   <translation>在内存里</translation>
  </message>
  <message>
   <source>it announces {count} tensors, more than any model has</source>
   <translation>它声称有 {count} 个张量，超过任何模型</translation>
  </message>
  <message>
   <source>it asks for an entry of Python's extension registry, which no model needs</source>
   <translation>它要使用 Python 的扩展注册表，任何模型都不需要这样做</translation>
  </message>
  <message>
   <source>it became shorter while it was read</source>
   <translation>读取过程中文件变短了</translation>
  </message>
  <message>
   <source>it calls what is no function</source>
   <translation>它调用了不是函数的东西</translation>
  </message>
  <message>
   <source>it can't be read ({detail})</source>
   <translation>读不了（{detail}）</translation>
  </message>
  <message>
   <source>it describes a tensor in no way known</source>
   <translation>其中一个张量的描述方式无法识别</translation>
  </message>
  <message>
   <source>it describes the storage {name} in two ways</source>
   <translation>它对存储区 {name} 有两种不同的描述</translation>
  </message>
  <message>
   <source>it has a number of {count} bytes</source>
   <translation>其中有一个长达 {count} 字节的数</translation>
  </message>
  <message>
   <source>it has a storage of a kind that Athanor does not know</source>
   <translation>其中有 Athanor 不认识的存储区类型</translation>
  </message>
  <message>
   <source>it has a table whose keys are no names</source>
   <translation>其中一个表的键不是名称</translation>
  </message>
  <message>
   <source>it has a tensor of an impossible name ({name})</source>
   <translation>其中有个张量的名称不可能成立（{name}）</translation>
  </message>
  <message>
   <source>it has a tensor that is larger than its storage</source>
   <translation>其中有个张量超出了它的存储区</translation>
  </message>
  <message>
   <source>it has a tensor that repeats its storage without end</source>
   <translation>其中有个张量无限重复自己的存储区</translation>
  </message>
  <message>
   <source>it has an instruction that Athanor does not know ({code})</source>
   <translation>其中有 Athanor 不认识的指令（{code}）</translation>
  </message>
  <message>
   <source>it has more layers than any model</source>
   <translation>层数超过任何模型</translation>
  </message>
  <message>
   <source>it has none</source>
   <translation>它没有</translation>
  </message>
  <message>
   <source>it has {name} twice or more tensors than any model</source>
   <translation>{name} 出现了两次，或张量数超过任何模型</translation>
  </message>
  <message>
   <source>it is a Python pickle, but none that torch wrote</source>
   <translation>它是 Python 的 pickle，但不是 torch 写的</translation>
  </message>
  <message>
   <source>it is a TorchScript program, not a file of weights</source>
   <translation>它是 TorchScript 程序，不是权重文件</translation>
  </message>
  <message>
   <source>it is a folder, not a file</source>
   <translation>它是文件夹，不是文件</translation>
  </message>
  <message>
   <source>it is a named pipe, a device or a socket, not a file</source>
   <translation>它是命名管道、设备或套接字，不是普通文件</translation>
  </message>
  <message>
   <source>it is a packed archive, not a model</source>
   <translation>它是压缩包，不是模型</translation>
  </message>
  <message>
   <source>it is broken or cut short ({detail})</source>
   <translation>已损坏或不完整（{detail}）</translation>
  </message>
  <message>
   <source>it is encrypted</source>
   <translation>它已加密</translation>
  </message>
  <message>
   <source>it is gone</source>
   <translation>已经不在了</translation>
  </message>
  <message>
   <source>it is larger than {limit} million pixels; make it smaller</source>
   <translation>超过 {limit} 百万像素；请缩小它</translation>
  </message>
  <message>
   <source>it is longer than such a file can be</source>
   <translation>它比这类文件可能的长度还长</translation>
  </message>
  <message>
   <source>it is not a picture, or its beginning is broken</source>
   <translation>不是图片，或开头已损坏</translation>
  </message>
  <message>
   <source>it is one part of a zip in several files</source>
   <translation>它是分卷 zip 中的一卷</translation>
  </message>
  <message>
   <source>it is only {width}×{height} pixels; the shorter side must have {least}</source>
   <translation>只有 {width}×{height} 像素；短边至少要 {least}</translation>
  </message>
  <message>
   <source>it lacks {tensor}</source>
   <translation>缺少 {tensor}</translation>
  </message>
  <message>
   <source>it refers to something outside that is no storage</source>
   <translation>它引用了文件之外的东西，而不是存储区</translation>
  </message>
  <message>
   <source>it shares its caption {file} with {other}</source>
   <translation>和 {other} 共用标注文件 {file}</translation>
  </message>
  <message>
   <source>it wants to import {name}, which no model needs; such a file can be harmful, and nothing in it was run</source>
   <translation>它要导入 {name}，任何模型都不需要这样做；这样的文件可能有害，其中的内容没有被执行</translation>
  </message>
  <message>
   <source>it was changed while the run was starting</source>
   <translation>在训练启动时被改动了</translation>
  </message>
  <message>
   <source>its alpha is not one number</source>
   <translation>它的 alpha 不是单个数</translation>
  </message>
  <message>
   <source>its directory at the end is missing</source>
   <translation>缺少文件末尾的目录</translation>
  </message>
  <message>
   <source>its directory has {count} entries, more than any model's</source>
   <translation>目录有 {count} 个条目，超过任何模型</translation>
  </message>
  <message>
   <source>its directory has {name} twice</source>
   <translation>目录里 {name} 出现了两次</translation>
  </message>
  <message>
   <source>its directory is damaged</source>
   <translation>目录已损坏</translation>
  </message>
  <message>
   <source>its directory lies outside of it</source>
   <translation>目录的位置在文件之外</translation>
  </message>
  <message>
   <source>its entry {name} has two sizes</source>
   <translation>条目 {name} 有两种大小</translation>
  </message>
  <message>
   <source>its entry {name} is damaged</source>
   <translation>条目 {name} 已损坏</translation>
  </message>
  <message>
   <source>its entry {name} is larger than that of any model</source>
   <translation>条目 {name} 比任何模型的都大</translation>
  </message>
  <message>
   <source>its entry {name} is not where the directory says</source>
   <translation>条目 {name} 不在目录所说的位置</translation>
  </message>
  <message>
   <source>its entry {name} is packed in a way that Athanor does not know</source>
   <translation>条目 {name} 的压缩方式 Athanor 不认识</translation>
  </message>
  <message>
   <source>its entry {name} lies over another</source>
   <translation>条目 {name} 与另一个条目重叠</translation>
  </message>
  <message>
   <source>its factors ({sizes}) do not fit each other</source>
   <translation>它的各因子（{sizes}）彼此不匹配</translation>
  </message>
  <message>
   <source>its first level has another width</source>
   <translation>第一层的宽度不同</translation>
  </message>
  <message>
   <source>its header describes {name} in no way known</source>
   <translation>文件头对 {name} 的描述无法理解</translation>
  </message>
  <message>
   <source>its header gives {name} a size that does not fit its shape</source>
   <translation>文件头里 {name} 的大小和形状不符</translation>
  </message>
  <message>
   <source>its header gives {name} an impossible place</source>
   <translation>文件头里 {name} 的位置不可能</translation>
  </message>
  <message>
   <source>its header has more entries than any model</source>
   <translation>文件头的条目数超过任何模型</translation>
  </message>
  <message>
   <source>its header has {name} twice</source>
   <translation>文件头里 {name} 出现了两次</translation>
  </message>
  <message>
   <source>its header is not JSON</source>
   <translation>文件头不是 JSON</translation>
  </message>
  <message>
   <source>its header is not a table</source>
   <translation>文件头不是表</translation>
  </message>
  <message>
   <source>its header leaves a hole before {name}</source>
   <translation>文件头在 {name} 之前留有空洞</translation>
  </message>
  <message>
   <source>its header puts {name} over another tensor</source>
   <translation>文件头里 {name} 与另一个张量重叠</translation>
  </message>
  <message>
   <source>its metadata is not a table</source>
   <translation>元数据不是表</translation>
  </message>
  <message>
   <source>its middle block is as deep as in no known model</source>
   <translation>中间块的深度与任何已知模型都不同</translation>
  </message>
  <message>
   <source>its numbers are in the byte order of another kind of processor</source>
   <translation>其中数据的字节顺序属于另一类处理器</translation>
  </message>
  <message>
   <source>its numbers are packed; unpack the file and save it again with torch</source>
   <translation>其中的数据经过压缩；请解压后用 torch 重新保存</translation>
  </message>
  <message>
   <source>its pickle ends too early</source>
   <translation>pickle 数据不完整，提前结束</translation>
  </message>
  <message>
   <source>its pickle has more instructions than any model</source>
   <translation>pickle 的指令数超过任何模型</translation>
  </message>
  <message>
   <source>its pickle is damaged</source>
   <translation>pickle 数据已损坏</translation>
  </message>
  <message>
   <source>its pickle is longer than that of any model</source>
   <translation>pickle 数据比任何模型的都长</translation>
  </message>
  <message>
   <source>its pickle is of a newer kind than Athanor knows</source>
   <translation>pickle 的版本比 Athanor 认识的更新</translation>
  </message>
  <message>
   <source>its tables are nested more deeply than those of any model</source>
   <translation>表的嵌套层数超过任何模型</translation>
  </message>
  <message>
   <source>linear</source>
   <translation>linear</translation>
  </message>
  <message>
   <source>min</source>
   <translation>分钟</translation>
  </message>
  <message>
   <source>no header at its beginning</source>
   <translation>开头没有文件头</translation>
  </message>
  <message>
   <source>nothing in it is probable enough for a tag; lower the thresholds</source>
   <translation>没有足够可能的标签；请降低阈值</translation>
  </message>
  <message>
   <source>of an unknown purpose</source>
   <translation>用途不明</translation>
  </message>
  <message>
   <source>off</source>
   <translation>关</translation>
  </message>
  <message>
   <source>on</source>
   <translation>开</translation>
  </message>
  <message>
   <source>on disk</source>
   <translation>在磁盘上</translation>
  </message>
  <message>
   <source>polynomial</source>
   <translation>polynomial</translation>
  </message>
  <message>
   <source>px</source>
   <translation>像素</translation>
  </message>
  <message>
   <source>shorter than the 8 bytes that every header begins with</source>
   <translation>比每个文件头开始的 8 个字节还短</translation>
  </message>
  <message>
   <source>text</source>
   <translation>文本</translation>
  </message>
  <message>
   <source>the file is empty</source>
   <translation>文件是空的</translation>
  </message>
  <message>
   <source>the numbers of {name} are damaged</source>
   <translation>{name} 的数据已损坏</translation>
  </message>
  <message>
   <source>the numbers of {name} are missing</source>
   <translation>缺少 {name} 的数据</translation>
  </message>
  <message>
   <source>the sizes of its tensors do not fit each other</source>
   <translation>各张量的尺寸互相对不上</translation>
  </message>
  <message>
   <source>the system could not read it ({detail})</source>
   <translation>系统读不了它（{detail}）</translation>
  </message>
  <message>
   <source>there is no permission to read it</source>
   <translation>没有读取权限</translation>
  </message>
  <message>
   <source>there is no section of this name.</source>
   <translation>没有这个名称的部分。</translation>
  </message>
  <message>
   <source>there is no setting of this name.</source>
   <translation>没有这个名称的设置。</translation>
  </message>
  <message>
   <source>there is not enough memory</source>
   <translation>内存不足</translation>
  </message>
  <message>
   <source>there is not enough memory to open it</source>
   <translation>内存不够，打不开</translation>
  </message>
  <message>
   <source>this kind of picture needs the package {package}</source>
   <translation>这种图片需要软件包 {package}</translation>
  </message>
  <message>
   <source>this should be a table of settings.</source>
   <translation>这里应当是一张设置表。</translation>
  </message>
  <message>
   <source>true or false</source>
   <translation>true 或 false</translation>
  </message>
  <message>
   <source>v-prediction</source>
   <translation>v 预测</translation>
  </message>
  <message>
   <source>with a depth map</source>
   <translation>带深度图</translation>
  </message>
  <message>
   <source>xformers</source>
   <translation>xformers</translation>
  </message>
  <message>
   <source>xformers does not work here ({reason}); SDPA is used instead.</source>
   <translation>xformers 在这里用不了（{reason}）；改用 SDPA。</translation>
  </message>
  <message>
   <source>{address} answers with error {code}.</source>
   <translation>{address} 返回了错误 {code}。</translation>
  </message>
  <message>
   <source>{address} answers, but not as the hub does ({reason}).</source>
   <translation>{address} 有应答，但不是 Hub 的应答（{reason}）。</translation>
  </message>
  <message>
   <source>{address} does not give {id} to this token.</source>
   <translation>{address} 不允许用这个令牌下载 {id}。</translation>
  </message>
  <message>
   <source>{address} is not an address such as {usual}.</source>
   <translation>{address} 不是像 {usual} 这样的地址。</translation>
  </message>
  <message>
   <source>{address} was asked too often.</source>
   <translation>对 {address} 的请求过于频繁。</translation>
  </message>
  <message>
   <source>{count} LoRAs merged into {path}: {layers} layers, ranks up to {rank}.</source>
   <translation>{count} 个 LoRA 已合并到 {path}：{layers} 层，秩最大 {rank}。</translation>
  </message>
  <message>
   <source>{count} averaged weights (EMA) were left out.</source>
   <translation>去掉了 {count} 个平均权重（EMA）。</translation>
  </message>
  <message>
   <source>{count} bytes are missing at its end</source>
   <translation>结尾少了 {count} 个字节</translation>
  </message>
  <message>
   <source>{count} bytes too many at its end</source>
   <translation>文件末尾多出 {count} 字节</translation>
  </message>
  <message>
   <source>{count} of its {total} entries are none of a plain LoRA, or only half of one, for example {name}.</source>
   <translation>它的 {total} 个条目中有 {count} 个不属于普通 LoRA，或者只有一半，例如 {name}。</translation>
  </message>
  <message>
   <source>{count} of {total} layers are equal in both models and were left out.</source>
   <translation>{total} 层中有 {count} 层在两个模型里相同，已略去。</translation>
  </message>
  <message>
   <source>{count} of {total} layers of {name} have no place in the model and were left out, for example {layer}.</source>
   <translation>{name} 的 {total} 层中有 {count} 层在模型里没有位置，已略去，例如 {layer}。</translation>
  </message>
  <message>
   <source>{count} of {total} layers of {path} are damaged, for example {name}: {reason}.</source>
   <translation>{path} 的 {total} 个层中有 {count} 个已损坏，例如 {name}：{reason}。</translation>
  </message>
  <message>
   <source>{count} of {total} layers of {path} are not those of a plain LoRA, for example {name}.</source>
   <translation>{path} 的 {total} 层中有 {count} 层不是普通 LoRA 的层，例如 {name}。</translation>
  </message>
  <message>
   <source>{count} other weights differ that a LoRA has no layer for, for example {name}; they are not in it.</source>
   <translation>另有 {count} 个权重不同，但 LoRA 没有对应的层，例如 {name}；它们不在结果里。</translation>
  </message>
  <message>
   <source>{count} tensors merged into {path}.</source>
   <translation>{count} 个张量已合并到 {path}。</translation>
  </message>
  <message>
   <source>{count} tensors of {label} have other sizes than in {first}, for example {name}.</source>
   <translation>{label} 有 {count} 个张量的尺寸与{first}不同，例如 {name}。</translation>
  </message>
  <message>
   <source>{count} tensors written to {path}.</source>
   <translation>{count} 个张量已写入 {path}。</translation>
  </message>
  <message>
   <source>{count} weights are not in {label} and were taken from Model A, for example {name}.</source>
   <translation>{label} 没有 {count} 个权重，已取自模型 A，例如 {name}。</translation>
  </message>
  <message>
   <source>{count} weights changed, written to {path}.</source>
   <translation>改动了 {count} 个权重，已写入 {path}。</translation>
  </message>
  <message>
   <source>{count} weights of {label} are numbers of another kind than in Model A, from which they were taken, for example {name}.</source>
   <translation>{label} 的 {count} 个权重与模型 A 中的数值类型不同，已改用模型 A 的，例如 {name}。</translation>
  </message>
  <message>
   <source>{count} weights of {label} have no place in Model A and were left out, for example {name}.</source>
   <translation>{label} 的 {count} 个权重在模型 A 里没有位置，已略去，例如 {name}。</translation>
  </message>
  <message>
   <source>{entry} is not of the form key=value.</source>
   <translation>{entry} 不是 key=value 的格式。</translation>
  </message>
  <message>
   <source>{family} has one text encoder.</source>
   <translation>{family} 只有一个文本编码器。</translation>
  </message>
  <message>
   <source>{family} inpainting model without a VAE.</source>
   <translation>{family} 局部重绘模型，不带 VAE。</translation>
  </message>
  <message>
   <source>{family} inpainting model.</source>
   <translation>{family} 局部重绘模型。</translation>
  </message>
  <message>
   <source>{family} model (diffusers folder).</source>
   <translation>{family} 模型（diffusers 文件夹）。</translation>
  </message>
  <message>
   <source>{family} model without a VAE.</source>
   <translation>{family} 模型，没有 VAE。</translation>
  </message>
  <message>
   <source>{family} model.</source>
   <translation>{family} 模型。</translation>
  </message>
  <message>
   <source>{family} models of this kind were made at {side} pixels.</source>
   <translation>这类 {family} 模型是在 {side} 像素下训练的。</translation>
  </message>
  <message>
   <source>{family} uses a layer of its own and takes no clip skip.</source>
   <translation>{family} 使用固定的层，不能设置 clip skip。</translation>
  </message>
  <message>
   <source>{family} uses the same layer always.</source>
   <translation>{family} 始终使用同一层。</translation>
  </message>
  <message>
   <source>{file} can not be read ({reason}).</source>
   <translation>{file} 读不了（{reason}）。</translation>
  </message>
  <message>
   <source>{file} can not be used ({reason}).</source>
   <translation>无法使用 {file}（{reason}）。</translation>
  </message>
  <message>
   <source>{file} cannot be opened as an ONNX model ({reason}).</source>
   <translation>{file} 不能作为 ONNX 模型打开（{reason}）。</translation>
  </message>
  <message>
   <source>{file} cannot be read ({reason}).</source>
   <translation>{file} 读不了（{reason}）。</translation>
  </message>
  <message>
   <source>{file} cannot be used: {why}.</source>
   <translation>{file} 不能用：{why}。</translation>
  </message>
  <message>
   <source>{file} cannot be written ({reason}).</source>
   <translation>{file} 写不进去（{reason}）。</translation>
  </message>
  <message>
   <source>{file} is empty or a web page: the download went wrong.</source>
   <translation>{file} 是空的或是网页：下载出了错。</translation>
  </message>
  <message>
   <source>{file} is left out: {why}.</source>
   <translation>{file} 不参加：{why}。</translation>
  </message>
  <message>
   <source>{file} is not a list of tags with the columns name and category.</source>
   <translation>{file} 不是带有 name 和 category 两列的标签表。</translation>
  </message>
  <message>
   <source>{file} is not the file itself but a note of where Git keeps it.</source>
   <translation>{file} 不是文件本身，只是 Git 记录它在哪里的便条。</translation>
  </message>
  <message>
   <source>{file} is too large for a caption and is left alone</source>
   <translation>{file} 太大，不像标注，保持不动</translation>
  </message>
  <message>
   <source>{file} knows {outputs} tags, but the list beside it has {labels}: they do not belong together.</source>
   <translation>{file} 认识 {outputs} 个标签，而旁边的列表有 {labels} 个：它们不是一套。</translation>
  </message>
  <message>
   <source>{file} may not be written or read.</source>
   <translation>{file} 没有读写权限。</translation>
  </message>
  <message>
   <source>{file} takes input of the shape {shape}, which is not how this kind of tagger sees pictures.</source>
   <translation>{file} 的输入形状是 {shape}，这类打标器不是这样看图的。</translation>
  </message>
  <message>
   <source>{file} was written by another version of Athanor.</source>
   <translation>{file} 是由另一个版本的 Athanor 写入的。</translation>
  </message>
  <message>
   <source>{file}: {reason}</source>
   <translation>{file}：{reason}</translation>
  </message>
  <message>
   <source>{folder} cannot be read ({reason}).</source>
   <translation>{folder} 读不了（{reason}）。</translation>
  </message>
  <message>
   <source>{folder} has no {file}.</source>
   <translation>{folder} 里没有 {file}。</translation>
  </message>
  <message>
   <source>{folder} is not the folder of a run: it has no run.toml.</source>
   <translation>{folder} 不是训练文件夹：里面没有 run.toml。</translation>
  </message>
  <message>
   <source>{folder}/ has no weights</source>
   <translation>{folder}/ 里没有权重文件</translation>
  </message>
  <message>
   <source>{folder}/ has no weights that can be used (.safetensors or .bin).</source>
   <translation>{folder}/ 中没有可用的权重（.safetensors 或 .bin）。</translation>
  </message>
  <message>
   <source>{folder}/ lacks its piece {file}</source>
   <translation>{folder}/ 缺少分片 {file}</translation>
  </message>
  <message>
   <source>{folder}: 0 repeats in its name mean that it is not used.</source>
   <translation>{folder}：名称里的重复次数是 0，所以不使用。</translation>
  </message>
  <message>
   <source>{folder}: captions that are not UTF-8: {count}, read as {encodings}. Check that their words look right.</source>
   <translation>{folder}：不是 UTF-8 的标注：{count} 条，按 {encodings} 读取。请看看文字对不对。</translation>
  </message>
  <message>
   <source>{folder}: captions whose encoding is doubtful: {count} ({names}). Save them as UTF-8 to be sure.</source>
   <translation>{folder}：编码不确定的标注：{count} 条（{names}）。稳妥起见请存成 UTF-8。</translation>
  </message>
  <message>
   <source>{folder}: empty caption files: {count} ({names}). Their pictures are trained without words.</source>
   <translation>{folder}：空的标注文件：{count} 个（{names}）。它们的图片不带词训练。</translation>
  </message>
  <message>
   <source>{folder}: its name doesn't begin with a number of repeats, so it is not used; rename it like “10_{folder}”, or add it to the list by itself.</source>
   <translation>{folder}：名称不以重复次数开头，所以不使用；请改名为“10_{folder}”，或把它单独加进列表。</translation>
  </message>
  <message>
   <source>{folder}: no folder in it can be used. {reason}</source>
   <translation>{folder}：里面没有可用的文件夹。{reason}</translation>
  </message>
  <message>
   <source>{folder}: pictures beside its numbered folders are not used ({count}); put them into one of those, or into a folder of their own.</source>
   <translation>{folder}：带数字的文件夹旁边的图片不使用（{count} 张）；请放进其中一个，或单独建一个文件夹。</translation>
  </message>
  <message>
   <source>{folder}: pictures in this subfolder are not used, as there are pictures beside it; add it to the list by itself if you want them.</source>
   <translation>{folder}：这个子文件夹里的图片不使用，因为旁边就有图片；想用就把它单独加进列表。</translation>
  </message>
  <message>
   <source>{folder}: pictures with the same name but another ending share one caption ({names}).</source>
   <translation>{folder}：同名但扩展名不同的图片共用一条标注（{names}）。</translation>
  </message>
  <message>
   <source>{folder}: pictures without a caption: {count} ({names}). The folder's name has no words for them either.</source>
   <translation>{folder}：没有标注的图片：{count} 张（{names}）。文件夹名里也没有可用的词。</translation>
  </message>
  <message>
   <source>{folder}: there are no pictures in it.</source>
   <translation>{folder}：里面没有图片。</translation>
  </message>
  <message>
   <source>{folder}: there are no pictures in it. Choose a folder with pictures, a folder named like “10_rufus cat”, or the folder that holds such folders.</source>
   <translation>{folder}：里面没有图片。请选放图片的文件夹、名称像“10_rufus cat”的文件夹，或包含这样文件夹的文件夹。</translation>
  </message>
  <message>
   <source>{folder}: there is no permission to read this folder.</source>
   <translation>{folder}：没有读取这个文件夹的权限。</translation>
  </message>
  <message>
   <source>{folder}: this folder can't be read ({detail}).</source>
   <translation>{folder}：这个文件夹读不了（{detail}）。</translation>
  </message>
  <message>
   <source>{folder}: this folder does not exist.</source>
   <translation>{folder}：这个文件夹不存在。</translation>
  </message>
  <message>
   <source>{folder}: this folder is listed twice; it is used once.</source>
   <translation>{folder}：这个文件夹列了两次，只用一次。</translation>
  </message>
  <message>
   <source>{folder}: this is a file, not a folder; choose the folder that it lies in.</source>
   <translation>{folder}：这是文件，不是文件夹；请选它所在的文件夹。</translation>
  </message>
  <message>
   <source>{given} amounts were given; this model has {count} blocks ({first} to {last}), so {count} or {more} are needed.</source>
   <translation>给了 {given} 个数值；这个模型有 {count} 块（{first} 到 {last}），所以需要 {count} 或 {more} 个。</translation>
  </message>
  <message>
   <source>{id} cannot be stored ({reason}). {file}</source>
   <translation>无法保存 {id}（{reason}）。{file}</translation>
  </message>
  <message>
   <source>{id} cannot be used: {reason}</source>
   <translation>{id} 不能使用：{reason}</translation>
  </message>
  <message>
   <source>{id} could not be fetched: {address} cannot be reached ({reason}).</source>
   <translation>无法下载 {id}：连接不上 {address}（{reason}）。</translation>
  </message>
  <message>
   <source>{id} is a model of another kind: {name}.</source>
   <translation>{id} 是另一类模型：{name}。</translation>
  </message>
  <message>
   <source>{id} is given only to those who have accepted its terms.</source>
   <translation>{id} 只提供给已同意其条款的用户。</translation>
  </message>
  <message>
   <source>{id} is not on this disk, and the hub may not be asked (HF_HUB_OFFLINE is set).</source>
   <translation>本机没有 {id}，而且不允许访问 Hub（设置了 HF_HUB_OFFLINE）。</translation>
  </message>
  <message>
   <source>{id} is not on this disk; the run will begin by downloading it from the hub ({size} GB).</source>
   <translation>本机没有 {id}，训练会先从 Hub 下载它（{size} GB）。</translation>
  </message>
  <message>
   <source>{id} is not on this disk; the run will begin by downloading it from the hub.</source>
   <translation>本机没有 {id}，训练会先从 Hub 下载它。</translation>
  </message>
  <message>
   <source>{id} needs {needed} GB more on the disk of {folder}, and {free} GB are free.</source>
   <translation>{id} 还需要 {folder} 所在硬盘上的 {needed} GB，而剩余空间只有 {free} GB。</translation>
  </message>
  <message>
   <source>{id}: there is no version of that name.</source>
   <translation>{id}：没有这个版本。</translation>
  </message>
  <message>
   <source>{label} is missing.</source>
   <translation>缺少：{label}。</translation>
  </message>
  <message>
   <source>{name} cannot be a file name on Windows.</source>
   <translation>{name} 在 Windows 上不能作文件名。</translation>
  </message>
  <message>
   <source>{name} has values up to {most}, too large for {dtype}.</source>
   <translation>{name} 的值最大到 {most}，对 {dtype} 来说太大。</translation>
  </message>
  <message>
   <source>{name} is missing</source>
   <translation>缺少 {name}</translation>
  </message>
  <message>
   <source>{name} is of a kind of numbers ({dtype}) that a .ckpt file cannot hold.</source>
   <translation>{name} 的数值类型（{dtype}）无法存入 .ckpt 文件。</translation>
  </message>
  <message>
   <source>{name} would be no numbers (NaN or infinite): one of the files is damaged there.</source>
   <translation>{name} 会变成不是数的值（NaN 或无穷大）：其中一个文件在此处已损坏。</translation>
  </message>
  <message>
   <source>{optimizer} does not take these arguments ({reason}).</source>
   <translation>{optimizer} 不接受这些参数（{reason}）。</translation>
  </message>
  <message>
   <source>{optimizer} finds its own rate and wants about 1 here.</source>
   <translation>{optimizer} 自己找学习率，这里要填 1 左右。</translation>
  </message>
  <message>
   <source>{optimizer} finds one rate for UNet and text encoder, and these differ.</source>
   <translation>{optimizer} 给 UNet 和文本编码器找同一个学习率，而这里不一样。</translation>
  </message>
  <message>
   <source>{optimizer} finds one rate for all parts, and these differ: {rates}.</source>
   <translation>{optimizer} 给所有部分找同一个学习率，而这里不一样：{rates}。</translation>
  </message>
  <message>
   <source>{optimizer} has no argument {name}.</source>
   <translation>{optimizer} 没有参数 {name}。</translation>
  </message>
  <message>
   <source>{path} cannot be converted. {reason}</source>
   <translation>{path} 不能转换。{reason}</translation>
  </message>
  <message>
   <source>{path} cannot be exported: {reason}</source>
   <translation>无法导出 {path}：{reason}</translation>
  </message>
  <message>
   <source>{path} cannot be exported: {reason}.</source>
   <translation>{path} 不能导出：{reason}。</translation>
  </message>
  <message>
   <source>{path} cannot be read as a folder. {summary}</source>
   <translation>{path} 不能作为文件夹读取。{summary}</translation>
  </message>
  <message>
   <source>{path} cannot be read: {reason}.</source>
   <translation>{path} 读不了：{reason}。</translation>
  </message>
  <message>
   <source>{path} cannot be tested: {problem}</source>
   <translation>无法测试 {path}：{problem}</translation>
  </message>
  <message>
   <source>{path} cannot be used: {problem}</source>
   <translation>{path} 不能用：{problem}</translation>
  </message>
  <message>
   <source>{path} cannot be used: {reason}.</source>
   <translation>无法使用 {path}：{reason}。</translation>
  </message>
  <message>
   <source>{path} has the layer {name} more than once, in different spellings.</source>
   <translation>{path} 以不同的写法多次包含层 {name}。</translation>
  </message>
  <message>
   <source>{path} has {count} tensors of a kind that the tools do not know, for example {name}.</source>
   <translation>{path} 有 {count} 个工具不认识的张量，例如 {name}。</translation>
  </message>
  <message>
   <source>{path} holds something else than notes on a model.</source>
   <translation>{path} 里不是模型的说明信息。</translation>
  </message>
  <message>
   <source>{path} is PEFT's {kind}, and adapter_config.json beside it is missing or says too little.</source>
   <translation>{path} 是 PEFT 的 {kind}，而旁边的 adapter_config.json 不在，或者信息不够。</translation>
  </message>
  <message>
   <source>{path} is a LoRA for {family}, the model is {wanted}.</source>
   <translation>{path} 是 {family} 的 LoRA，而模型是 {wanted}。</translation>
  </message>
  <message>
   <source>{path} is a file, not a folder.</source>
   <translation>{path} 是文件，不是文件夹。</translation>
  </message>
  <message>
   <source>{path} is a folder; metadata is in the header of a .safetensors file.</source>
   <translation>{path} 是文件夹；元数据在 .safetensors 文件的文件头里。</translation>
  </message>
  <message>
   <source>{path} is a folder; these programs want one file.</source>
   <translation>{path} 是一个文件夹，而这些程序需要单个文件。</translation>
  </message>
  <message>
   <source>{path} is a link to a file that is not there.</source>
   <translation>{path} 是一个链接，指向的文件不存在。</translation>
  </message>
  <message>
   <source>{path} is in the way: it holds something else than notes on a model.</source>
   <translation>{path} 占用了位置：里面不是关于模型的说明。</translation>
  </message>
  <message>
   <source>{path} is no safetensors file, and only these have metadata.</source>
   <translation>{path} 不是 safetensors 文件，只有这种文件才有元数据。</translation>
  </message>
  <message>
   <source>{path} is not a run file: {reason}.</source>
   <translation>{path} 不是训练文件：{reason}。</translation>
  </message>
  <message>
   <source>{path} is not a text file in UTF-8.</source>
   <translation>{path} 不是 UTF-8 的文本文件。</translation>
  </message>
  <message>
   <source>{path} lies there already.</source>
   <translation>{path} 已经在那里了。</translation>
  </message>
  <message>
   <source>{path} says another hash of itself in its header: its weights were changed since, or its writer counted otherwise.</source>
   <translation>{path} 的文件头中记录的哈希与实际不同：其权重后来被修改过，或写入它的程序采用了别的算法。</translation>
  </message>
  <message>
   <source>{path}: ranks {least} to {greatest}, {mean} on average; {kept} % of the change's length is left, {size} of the size.</source>
   <translation>{path}：秩 {least} 到 {greatest}，平均 {mean}；保留了变化长度的 {kept} %，文件大小为原来的 {size}。</translation>
  </message>
  <message>
   <source>{path}: {count} layers, ranks {least} to {greatest}; {kept} % of the difference's length is in it.</source>
   <translation>{path}：{count} 层，秩 {least} 到 {greatest}；包含差别长度的 {kept} %。</translation>
  </message>
  <message>
   <source>{path}: {reason}.</source>
   <translation>文件 {path}：{reason}。</translation>
  </message>
  <message>
   <source>{path}: {written} entries written, {removed} taken out.</source>
   <translation>{path}：写入 {written} 个条目，去掉 {removed} 个。</translation>
  </message>
  <message>
   <source>{program} answered with error {code}; press its own refresh button.</source>
   <translation>{program} 返回错误 {code}；请点它自己的刷新按钮。</translation>
  </message>
  <message>
   <source>{program} has no folder for this. {summary}</source>
   <translation>{program} 没有存放它的文件夹。{summary}</translation>
  </message>
  <message>
   <source>{program} has no way to read its list of this kind anew; start it again.</source>
   <translation>{program} 无法重新读取这类文件的列表；请重新启动它。</translation>
  </message>
  <message>
   <source>{reason} Before that it was placed at {paths}.</source>
   <translation>{reason}在此之前已放置到 {paths}。</translation>
  </message>
  <message>
   <source>{setting} has another value than before.</source>
   <translation>{setting} 的值与之前不同。</translation>
  </message>
  <message>
   <source>{setting} was {before} and is now {after}.</source>
   <translation>{setting} 原来是 {before}，现在是 {after}。</translation>
  </message>
  <message>
   <source>{side} is not a multiple of {step}.</source>
   <translation>{side} 不是 {step} 的倍数。</translation>
  </message>
  <message>
   <source>{side} is out of range; sides go from 64 to 8192.</source>
   <translation>{side} 超出范围；边长从 64 到 8192。</translation>
  </message>
  <message>
   <source>{summary} A base model (checkpoint) is needed here.</source>
   <translation>{summary}这里需要底模（checkpoint）。</translation>
  </message>
  <message>
   <source>{summary} Choose the folder above it, with model_index.json.</source>
   <translation>{summary}请选择它的上一级文件夹，也就是有 model_index.json 的那个。</translation>
  </message>
  <message>
   <source>{summary} It was downloaded from the hub.</source>
   <translation>{summary}它是从 Hub 下载的。</translation>
  </message>
  <message>
   <source>{tensor} holds numbers of the kind {dtype}</source>
   <translation>{tensor} 的数值类型是 {dtype}</translation>
  </message>
  <message>
   <source>{text} is no model's id on the hub.</source>
   <translation>{text} 不是 Hub 上模型的 ID。</translation>
  </message>
  <message>
   <source>{text} is not a number.</source>
   <translation>{text} 不是数字。</translation>
  </message>
  <message>
   <source>{train} training and {classes} class pictures an epoch (repeats counted; sizes: {buckets}) ÷ batch size {batch} → {batches} batches ÷ accumulation {accumulation} → {steps} steps an epoch. The run ends after {total} steps, in epoch {epochs}.</source>
   <translation>每轮 {train} 张训练图和 {classes} 张类别图（已计重复；尺寸 {buckets} 种）÷ 批大小 {batch} → {batches} 批 ÷ 累积 {accumulation} → 每轮 {steps} 步。训练在第 {epochs} 轮里的第 {total} 步结束。</translation>
  </message>
  <message>
   <source>{train} training and {classes} class pictures an epoch (repeats counted; sizes: {buckets}) ÷ batch size {batch} → {batches} batches ÷ accumulation {accumulation} → {steps} steps × epochs {epochs} = {total} steps.</source>
   <translation>每轮 {train} 张训练图和 {classes} 张类别图（已计重复；尺寸 {buckets} 种）÷ 批大小 {batch} → {batches} 批 ÷ 累积 {accumulation} → {steps} 步 × {epochs} 轮 = {total} 步。</translation>
  </message>
  <message>
   <source>{train} training and {classes} class pictures in the first epoch (repeats counted; sizes: {buckets}) ÷ batch size {batch} → {batches} batches ÷ accumulation {accumulation} → {steps} steps. Class pictures take turns, so other epochs can differ a little. Epochs: {epochs}; steps in all: {total}.</source>
   <translation>第一轮 {train} 张训练图和 {classes} 张类别图（已计重复；尺寸 {buckets} 种）÷ 批大小 {batch} → {batches} 批 ÷ 累积 {accumulation} → {steps} 步。类别图轮流取用，其他轮可能略有不同。轮数 {epochs}；共 {total} 步。</translation>
  </message>
  <message>
   <source>{value} cannot be used here: {reason}.</source>
   <translation>{value} 在这里不能用：{reason}。</translation>
  </message>
  <message>
   <source>{value} is no amount of a block.</source>
   <translation>{value} 不能作为块的数值。</translation>
  </message>
  <message>
   <source>{value} is not a colour.</source>
   <translation>{value} 不是颜色。</translation>
  </message>
  <message>
   <source>{value} is not a multiple of {limit}.</source>
   <translation>{value} 不是 {limit} 的倍数。</translation>
  </message>
  <message>
   <source>{value} is not one of {allowed}.</source>
   <translation>{value} 不在可选的 {allowed} 之中。</translation>
  </message>
  <message>
   <source>{value} is not {wanted}.</source>
   <translation>{value} 不是{wanted}。</translation>
  </message>
  <message>
   <source>{value} is text, and a number is needed.</source>
   <translation>{value} 是文字，这里需要数字。</translation>
  </message>
  <message>
   <source>{value} is too large; it must be less than {limit}.</source>
   <translation>{value} 太大；必须小于 {limit}。</translation>
  </message>
  <message>
   <source>{value} is too large; the most is {limit}.</source>
   <translation>{value} 太大；最大 {limit}。</translation>
  </message>
  <message>
   <source>{value} is too small; it must be more than {limit}.</source>
   <translation>{value} 太小；必须大于 {limit}。</translation>
  </message>
  <message>
   <source>{value} is too small; the least is {limit}.</source>
   <translation>{value} 太小；最小 {limit}。</translation>
  </message>
  <message>
   <source>{warmup} is longer than the run ({steps} steps).</source>
   <translation>{warmup} 比整个训练还长（{steps} 步）。</translation>
  </message>
  <message>
   <source>{what}: a LoRA is needed, {path} is none. {reason}</source>
   <translation>{what}：需要一个 LoRA，{path} 不是。{reason}</translation>
  </message>
  <message>
   <source>{what}: a base model is needed, {path} is none. {reason}</source>
   <translation>{what}：需要一个底模，{path} 不是。{reason}</translation>
  </message>
  <message>
   <source>{why} Encoded pictures of this run are kept in memory instead.</source>
   <translation>{why}这次训练把编码好的图片留在内存里。</translation>
  </message>
  <message>
   <source>{why}.</source>
   <translation>原因：{why}。</translation>
  </message>
  <message>
   <source>{word} is not of the form key=value.</source>
   <translation>{word} 不是 key=value 的格式。</translation>
  </message>
  <message>
   <source>{written} captions written, {unchanged} unchanged; {kept} pictures have a caption and were left alone, {skipped} were skipped.</source>
   <translation>写了 {written} 条标注，{unchanged} 条没有变化；{kept} 张图已有标注，保持不动，跳过 {skipped} 张。</translation>
  </message>
 </context>
</TS>
