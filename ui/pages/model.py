"""The second page: which model is served, and how to ask it without this page."""

from collections.abc import Mapping
from urllib.parse import urlsplit

import streamlit as st

from serving.client import ModelMetadata, ServingError, TensorInfo, VersionStatus
from ui import advice as words
from ui import markup, models, service
from ui.settings import Settings

STATES = {"AVAILABLE": "ready", "LOADING": "loading", "START": "waiting to load", "UNLOADING": "leaving", "END": "gone"}


def page() -> None:
    """The page as Streamlit runs it."""
    st.title("How to call it", anchor=False)
    st.html('<p class="vt-lead">The page asks the model over the same interface that is open to your programs.</p>')
    settings = models.choose(Settings.from_environment())
    _snippets(_public_url(settings), settings)
    st.subheader("What is served", anchor=False)
    try:
        versions = service.status(settings)
        metadata = service.metadata(settings)
        classes = service.classes(settings, metadata.version)
    except (ServingError, ValueError) as error:
        advice = words.for_error(error)
        st.error(markup.advice_text(advice), icon=":material/error:")
        st.button("Try again", icon=":material/refresh:")
        return
    _versions(settings, versions)
    st.markdown("**Classes**")
    st.html(markup.chips(classes))
    _signatures(metadata)


def _public_url(settings: Settings) -> str:
    """The address in the visitor's browser, which is the gateway's; SERVING_URL where there is none."""
    parts = urlsplit(st.context.url or settings.url)
    return f"{parts.scheme}://{parts.netloc}"


def _snippets(url: str, settings: Settings) -> None:
    user = settings.user or "USER"
    path = f"{settings.model}/labels/{settings.label}" if settings.label else settings.model
    which = f'model="{settings.model}"' + (f', label="{settings.label}"' if settings.label else "")
    curl, rest, grpc = st.tabs(["curl", "Python", "Python, gRPC"])
    with curl:
        st.code(
            """{ printf '{"instances": [{"b64": "'; base64 < picture.png | tr -d '\\n'; printf '"}]}'; } |\n"""
            f"  curl -u {user} {url}/v1/models/{path}:predict -d @-",
            language="bash",
        )
        st.caption("curl asks for the password. The picture goes through a pipe: it may be longer than a command line.")
    with rest:
        st.code(
            "import os\n\nfrom serving.client import ServingClient\n\n"
            f'with ServingClient("{url}", "{user}", os.environ["GATEWAY_PASSWORD"], '
            f"{which}) as client:\n"
            '    prediction = client.predict("picture.png")[0]\n'
            "    print(prediction.class_name, prediction.probability, prediction.version)",
            language="python",
        )
    with grpc:
        st.code(
            "import os\n\nfrom serving.client.grpc import GrpcServingClient\n\n"
            f'with GrpcServingClient("{url}", "{user}", os.environ["GATEWAY_PASSWORD"], '
            f"{which}) as client:\n"
            '    print(client.explain("picture.png")[0].cams.shape)',
            language="python",
        )


def _versions(settings: Settings, versions: list[VersionStatus]) -> None:
    for status in versions:
        state = STATES.get(status.state, status.state.lower())
        trouble = f" ({status.error_message})" if status.error_message else ""
        st.html(markup.version_line(settings.model, status.version, state + trouble, ready=status.available))


def _signatures(metadata: ModelMetadata) -> None:
    st.markdown(f"**Signatures of version {metadata.version}**")
    rows = [
        {"signature": name, "takes": _tensors(signature.inputs), "gives": _tensors(signature.outputs)}
        for name, signature in sorted(metadata.signatures.items())
        if not name.startswith("__")  # the loader's own
    ]
    st.table(rows, hide_index=True)


def _tensors(tensors: Mapping[str, TensorInfo]) -> str:
    """Inputs or outputs in one line: `image_bytes` string (N)."""
    return ", ".join(f"`{name}` {_tensor(info)}" for name, info in sorted(tensors.items()))


def _tensor(info: TensorInfo) -> str:
    dtype = info.dtype.removeprefix("DT_").lower()
    if info.shape is None:
        return dtype
    sizes = [
        "N" if at == 0 and size is None else "any" if size is None else str(size) for at, size in enumerate(info.shape)
    ]
    return f"{dtype} ({', '.join(sizes)})"
