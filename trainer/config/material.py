"""What a run learns and from what: the sections of the run file about the base model and the pictures."""

from __future__ import annotations

from trainer.config.fields import Choice, Section, setting


class Model(Section):
    """The model that learns."""

    path: str = setting(
        "",
        "Base model",
        "The model to train on: one file, a diffusers folder, or an id on the Hugging Face hub (owner/name). "
        "Stable Diffusion 1.x, 2.x or SDXL.",
        widget="file",
        kohya=("pretrained_model_name_or_path",),
    )
    vae: str = setting(
        "",
        "Separate VAE",
        "A VAE file or folder to use in place of the model's own; empty keeps the model's.",
        level="advanced",
        widget="file",
        kohya=("vae",),
    )
    text_encoder: str = setting(
        "",
        "Separate text encoder",
        "A file or folder with the text encoder of this kind of model, for a base model that has none; empty takes its own.",
        level="advanced",
        widget="file",
    )
    text_encoder_2: str = setting(
        "",
        "Second separate text encoder",
        "The other one, where SDXL's two text encoders are files apart; empty takes the model's own.",
        level="advanced",
        widget="file",
    )
    clip_skip: int = setting(
        1,
        "Clip skip",
        "Which of the text encoder's last layers is used: 2 for most anime models, 1 for photographic ones. SD 2.x and "
        "SDXL have a layer of their own and take only 1.",
        kohya=("clip_skip",),
        ge=1,
        le=12,
    )
    token_length: int = setting(
        75,
        "Caption length",
        "How many tokens of a caption count. Long captions need 150 or 225; the rest is cut off.",
        costs="Longer is a little slower.",
        choices=(Choice(75, "75 tokens"), Choice(150, "150 tokens"), Choice(225, "225 tokens")),
        kohya=("max_token_length",),
    )
    prediction: str = setting(
        "auto",
        "Prediction",
        "What the model was made to tell: the noise, or v, a mixture of noise and picture. A wrong choice ruins it.",
        level="advanced",
        choices=(
            Choice("auto", "as the model says", "What its file says; a Stable Diffusion 2.x that says nothing is tested."),
            Choice("epsilon", "epsilon", "The noise: nearly every model."),
            Choice("v_prediction", "v-prediction", "Stable Diffusion 2.x at 768, and models that say so."),
        ),
        kohya=("v_parameterization", "v2"),
    )
    zero_terminal_snr: str = setting(
        "auto",
        "Zero terminal SNR",
        "Whether the noisiest step holds nothing of the picture: true darks and brights, for v-prediction models only.",
        level="advanced",
        choices=(
            Choice("auto", "as the model says"),
            Choice("on", "on", "For a v-prediction model made so, or to be made so by a long training."),
            Choice("off", "off"),
        ),
        kohya=("zero_terminal_snr",),
    )


class Folder(Section):
    """A folder of pictures: a kohya folder such as `10_rufus cat`, its parent, or any folder with pictures."""

    path: str = setting("", "Folder", "Where the pictures are. They are only read, never changed.", widget="folder")
    enabled: bool = setting(True, "Use", "A folder that is switched off stays in the list and is not trained.")
    repeats: int | None = setting(
        None,
        "Repeats",
        "How often each picture is shown in an epoch. Empty takes the number in the folder's name.",
        kohya=("num_repeats", "dataset_repeats"),
        ge=1,
        le=10000,
    )
    caption: str = setting(
        "",
        "Words",
        "The caption of pictures that have no caption file. Empty takes the words in the folder's name.",
        kohya=("class_tokens",),
    )


class Images(Section):
    """The pictures to learn, their captions and their sizes."""

    folders: tuple[Folder, ...] = setting(
        (), "Folders", "Folders with the pictures to learn.", widget="list", kohya=("train_data_dir", "image_dir")
    )
    caption_extension: str = setting(
        ".txt",
        "Caption files",
        "The ending of the caption file beside each picture.",
        choices=(
            Choice(".txt", ".txt, else .caption", "The usual one; .caption is read where there is no .txt."),
            Choice(".caption", ".caption, else .txt", "As sd-scripts has it; .txt is read where there is no .caption."),
        ),
        kohya=("caption_extension",),
    )
    caption_prefix: str = setting(
        "", "Caption prefix", "Put in front of every caption, a trigger word for example.", kohya=("caption_prefix",)
    )
    shuffle_captions: bool = setting(
        False,
        "Shuffle tags",
        "Puts the comma-separated parts of a caption in a new order each time. Only for tag lists.",
        costs="The text encoder's answers can not be cached.",
        kohya=("shuffle_caption",),
    )
    keep_tokens: int = setting(
        0,
        "Keep first tags",
        "How many tags at the start stay in place when shuffling; the trigger word should be among them.",
        kohya=("keep_tokens",),
        ge=0,
        le=255,
    )
    caption_dropout: float = setting(
        0.0,
        "Caption dropout",
        "Share of pictures that are shown without any caption, 0 to 0.1. Helps the model to work with weak prompts.",
        level="advanced",
        step=0.05,
        kohya=("caption_dropout_rate",),
        ge=0,
        le=1,
    )
    weighted_captions: bool = setting(
        False,
        "Weighted captions",
        "Reads brackets in captions as prompts do: (word) counts more, [word] less, (word:1.3) just so.",
        level="advanced",
        kohya=("weighted_captions",),
    )
    resolution: tuple[int, ...] = setting(
        (512, 512),
        "Resolution",
        "Width and height that pictures are scaled to cover. 512 is native for SD 1.x, 768 for the v-prediction models "
        "of SD 2.x, 1024 for SDXL; multiples of 64.",
        widget="size",
        unit="px",
        costs="Twice the side is four times the work and memory.",
        kohya=("resolution", "max_resolution"),
    )
    buckets: bool = setting(
        True,
        "Keep shapes",
        "Trains portrait and landscape pictures in their own shape (aspect-ratio buckets) instead of cropping them.",
        kohya=("enable_bucket",),
    )
    bucket_step: int = setting(
        64, "Bucket step", "Sides of the buckets are multiples of this.", level="advanced", unit="px",
        choices=(Choice(64, "64"), Choice(32, "32"), Choice(16, "16"), Choice(8, "8")), kohya=("bucket_reso_steps",),
    )  # fmt: skip
    bucket_min: int = setting(
        256, "Shortest side", "No bucket has a shorter side.", level="advanced", unit="px", step=64,
        kohya=("min_bucket_reso",), ge=8, le=4096,
    )  # fmt: skip
    bucket_max: int = setting(
        1024, "Longest side", "No bucket has a longer side.", level="advanced", unit="px", step=64,
        kohya=("max_bucket_reso",), ge=64, le=8192,
    )  # fmt: skip
    no_upscale: bool = setting(
        False,
        "Never enlarge",
        "Small pictures get smaller buckets instead of being enlarged.",
        level="advanced",
        kohya=("bucket_no_upscale",),
    )
    flip: bool = setting(
        False,
        "Mirror",
        "Shows each picture mirrored half of the time. Not for asymmetric subjects.",
        kohya=("flip_aug",),
    )
    alpha_colour: str = setting(
        "#ffffff",
        "Behind transparency",
        "The colour that transparent pictures are laid on.",
        level="advanced",
        widget="colour",
    )
    mask_variants: int = setting(
        4,
        "Masks for inpainting",
        "How many masks each picture gets: its opaque part, all of it, rectangles, brush strokes. Only an inpainting "
        "model uses them.",
        level="advanced",
        costs="Each is one more encoded picture in the cache.",
        kohya=("train_inpainting",),
        ge=1,
        le=64,
    )
    smallest_side: int = setting(
        32,
        "Smallest picture",
        "Pictures with a shorter side are skipped and named.",
        level="advanced",
        unit="px",
        ge=1,
        le=4096,
    )


class Regularization(Section):
    """Class pictures: what the class looks like without your subject, so that the model does not forget it."""

    folders: tuple[Folder, ...] = setting(
        (),
        "Class folders",
        "Folders with pictures of the class, such as `1_cat`.",
        widget="list",
        kohya=("reg_data_dir",),
    )
    prior_loss_weight: float = setting(
        1.0,
        "Prior loss weight",
        "How much the class pictures count. 1 is as much as yours; lower it if the subject comes out too weak.",
        step=0.05,
        kohya=("prior_loss_weight",),
        ge=0,
        le=10,
    )
