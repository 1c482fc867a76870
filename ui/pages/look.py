"""The main page: choose a picture, read what it is, see why."""

import time
from dataclasses import dataclass

import numpy as np
import streamlit as st
from PIL import Image

from serving.client import NotFound, ServingError, overlay
from serving.client.colormaps import diverging, sequential
from serving.client.results import Floats
from ui import advice as words
from ui import gallery, markup, models, photos, service
from ui.advice import Advice
from ui.photos import Picture
from ui.service import Answer
from ui.settings import Settings

GALLERY_WAYS = ("Gallery", "Camera")
FILE_WAYS = ("File", "Camera")  # with a model for whose classes there is no gallery
TOP_CHOICES = {"Top 3": 3, "Top 5": 5, "All": 1000}
NO_CONTRAST = -1
RECOVERY_CHECK_S = 3.0
FINE, COARSE = "Fine", "Grad-CAM"


def page() -> None:
    """The page as Streamlit runs it, from top to bottom, at every action of the visitor."""
    st.title("Vitrine", anchor=False)
    st.html('<p class="vt-lead">Show it a picture. It says what it sees, how sure it is, and why.</p>')
    left, right = st.columns([4, 8], gap="large")
    with left:
        settings = models.choose(Settings.from_environment())
        _ways_in(_with_gallery(settings))
    with right:
        _answer_to(settings, st.session_state.get("picture"), st.session_state.get("problem"))


def _with_gallery(settings: Settings) -> bool:
    """Whether the gallery's pictures are of classes that the model knows."""
    if settings.model == gallery.MODEL:
        return True
    try:
        classes = service.classes(settings, service.current_version(settings))
    except (ServingError, ValueError):
        return False
    return {sample.label for sample in gallery.load()} <= set(classes)


def _ways_in(with_gallery: bool) -> None:
    # Always there: a file dropped where nothing takes it would replace the page in the browser.
    upload = f"upload-{st.session_state.setdefault('uploads', 0)}"
    st.file_uploader(
        "Drop a picture, or choose one",
        type=["png", "jpg", "jpeg", "gif", "bmp", "webp"],
        key=upload,
        on_change=_take_upload,
        args=(upload,),
    )
    ways = GALLERY_WAYS if with_gallery else FILE_WAYS
    way = st.segmented_control(
        "Where the picture comes from",
        ways,
        default=ways[0],
        required=True,
        key=_way_key(ways),
        label_visibility="collapsed",
        persist_state="session",
    )
    if way == "Camera":
        st.camera_input("Hold it in front of a plain background", key="camera", on_change=_take_photo)
        st.caption("The browser gives the camera only to pages on https or on this machine.")
    elif with_gallery:
        _gallery()


def _way_key(ways: tuple[str, ...]) -> str:
    """Of the control that offers these ways: a choice among others would be none of its own."""
    return "way" if ways == GALLERY_WAYS else "way-file"


def _gallery() -> None:
    samples, chosen = gallery.load(), st.session_state.get("sample")
    st.html(markup.gallery_style(samples, chosen))
    with st.container(key="gallery"):
        for sample in samples:
            # What is emphasised is for screen readers; the style sheet hides it from the eye.
            state = ", chosen" if sample.test_index == chosen else ""
            label = f"{sample.label} *({sample.name.lower()}{state})*"
            st.button(label, key=f"sample-{sample.test_index}", on_click=_take_sample, args=(sample,))
    st.caption("Twenty real test images of Fashion-MNIST, 28 x 28 pixels, with their true labels.")


def _take_sample(sample: gallery.Sample) -> None:
    _empty_the_uploader()
    _take(sample.name, sample.file.read_bytes(), sample.label)
    st.session_state["sample"] = sample.test_index


def _take_photo() -> None:
    _empty_the_uploader()
    photo = st.session_state["camera"]
    _take("Your photo", None if photo is None else photo.getvalue())


def _take_upload(key: str) -> None:
    for ways in (GALLERY_WAYS, FILE_WAYS):
        if _way_key(ways) in st.session_state:
            # The camera's picture would stand there as if it were the one explained.
            st.session_state[_way_key(ways)] = ways[0]
    file = st.session_state[key]
    _take("" if file is None else file.name, None if file is None else file.getvalue())


def _empty_the_uploader() -> None:
    """Its file is no longer the picture of the page. Streamlit empties it only under a new key."""
    st.session_state["uploads"] += 1


def _take(name: str, raw: bytes | None, true_label: str | None = None) -> None:
    """Make this the picture of the page, or say why it cannot be; None takes the picture away."""
    st.session_state.update(picture=None, problem=None, sample=None)
    if raw is None:
        return
    try:
        st.session_state["picture"] = photos.read(name, raw, true_label)
    except photos.PhotoError as error:
        st.session_state["problem"] = error.advice


def _answer_to(settings: Settings, picture: Picture | None, problem: Advice | None) -> None:
    if problem is not None:
        _show_advice(problem)
    elif picture is None:
        st.html(markup.invitation())
    else:
        try:
            with st.spinner("Looking …"):
                answer = service.answer(settings, picture.data)
        except (ServingError, ValueError) as error:
            _show_failure(settings, words.for_error(error))
        else:
            _show_answer(settings, picture, answer)


def _show_advice(advice: Advice) -> None:
    st.error(markup.advice_text(advice), icon=":material/error:")
    if advice.detail:
        with st.expander("Details"):
            st.code(advice.detail, language=None, wrap_lines=True)


def _show_failure(settings: Settings, advice: Advice) -> None:
    _show_advice(advice)
    st.button("Try again", icon=":material/refresh:", key="retry")
    if advice.recovers:
        _wait_for_server(settings, time.monotonic())


@st.fragment(run_every=RECOVERY_CHECK_S)
def _wait_for_server(settings: Settings, failed_at: float) -> None:
    """Look every few seconds whether the model can be asked again, and go on as soon as it can."""
    if time.monotonic() - failed_at < RECOVERY_CHECK_S / 2:
        return  # drawn together with the failure itself
    try:
        service.current_version(settings)
    except ServingError:
        return
    st.rerun()


def _show_answer(settings: Settings, picture: Picture, answer: Answer) -> None:
    explanation = answer.explanation
    told, numbers = st.columns([5, 6], gap="large")
    with told:
        st.html(markup.headline(explanation.class_name, explanation.probability))
        if picture.true_label is not None:
            st.html(markup.verdict(explanation.class_name, picture.true_label, answer.classes))
    with numbers:
        choice = st.segmented_control(
            "How many classes",
            TOP_CHOICES,
            default="Top 5",
            required=True,
            key="top",
            label_visibility="collapsed",
            persist_state="session",
        )
        st.html(markup.bars(explanation.top(TOP_CHOICES[choice], answer.classes)))
    for note in picture.notes:
        st.info(note, icon=":material/info:")
    _explain(settings, picture, answer)
    st.html(markup.footer(settings.model, explanation.version, explanation.latency_ms, remembered=answer.remembered))


@st.fragment
def _explain(settings: Settings, picture: Picture, answer: Answer) -> None:
    """Where the evidence lies. A fragment: its controls draw anew, and ask for nothing but fine maps, once a class."""
    st.subheader("Why", anchor=False)
    pictures = st.container(key="pictures")
    class_id, other_id, opacity = _controls(picture, answer)
    try:
        evidence = _evidence_map(settings, picture, answer, class_id, other_id)
    except ServingError as error:
        if isinstance(error, NotFound) and service.replaced(settings, answer):
            st.rerun()  # the whole page: what it shows is another version's
        _show_failure(settings, words.for_error(error))
        return
    with pictures:
        _pictures(picture, answer, evidence, opacity)
    with st.expander("The raw numbers"):
        _raw_numbers(evidence)


@dataclass(frozen=True, eq=False)
class _Shown:
    """The map that is shown: of one class, or of one rather than another."""

    values: Floats  # (h, w), logits
    name: str
    other: str | None
    fine: bool


def _evidence_map(settings: Settings, picture: Picture, answer: Answer, class_id: int, other_id: int) -> _Shown:
    """What the controls ask for: LayerCAM on a fine grid where the model has it, as that tells more, else Grad-CAM."""
    name = answer.classes[class_id]
    other = None if other_id == NO_CONTRAST else answer.classes[other_id]
    if answer.fine is not None:
        grids = {FINE: answer.fine.shape, COARSE: answer.explanation.cams.shape[1:]}
        kind = st.segmented_control(
            "Which map",
            grids,
            format_func=lambda one: f"{one}, {grids[one][0]} x {grids[one][1]}",
            default=FINE,
            required=True,
            key="map",
            label_visibility="collapsed",
            persist_state="session",
        )
        if kind == FINE:
            fine = _fine_map(settings, picture, answer, class_id)
            if other is not None:
                fine = fine - _fine_map(settings, picture, answer, other_id)
            return _Shown(fine, name, other, fine=True)
    cam = answer.explanation.cams[class_id] if other is None else answer.explanation.contrast(class_id, other_id)
    return _Shown(cam, name, other, fine=False)


def _fine_map(settings: Settings, picture: Picture, answer: Answer, class_id: int) -> Floats:
    explanation = answer.explanation
    if answer.fine is not None and class_id == explanation.class_id:
        return answer.fine
    return service.fine_map(settings, picture.data, explanation.version, class_id)


def _controls(picture: Picture, answer: Answer) -> tuple[int, int, float]:
    """The class to explain, the one to set against it (or NO_CONTRAST), and the opacity 0..1."""
    explanation = answer.explanation
    ranked = [score.class_id for score in explanation.top(len(answer.classes), answer.classes)]
    which = f"{picture.digest}-{explanation.version}"
    one, two, three = st.columns(3, gap="medium")

    def named(class_id: int) -> str:
        if class_id == NO_CONTRAST:
            return "no other class"
        return f"{answer.classes[class_id]} · {markup.percent(float(explanation.probabilities[class_id]))}"

    class_id = one.selectbox("Evidence for", ranked, format_func=named, key=f"class-{which}")
    others = [NO_CONTRAST, *(other for other in ranked if other != class_id)]
    other_id = two.selectbox("rather than", others, format_func=named, key=f"other-{which}-{class_id}")
    opacity = three.slider("Opacity of the map", 0, 100, 70, 5, format="%d%%", key="opacity", persist_state="session")
    return class_id, other_id, opacity / 100


def _pictures(picture: Picture, answer: Answer, evidence: _Shown, opacity: float) -> None:
    layout = overlay.lay_out(picture.shown, None if answer.view is None else answer.view.box)
    whole, why, view = st.columns(3, gap="medium")
    whole.image(
        markup.picture_url(layout.image), caption="The picture", alt=f"The picture: {picture.name}", width="stretch"
    )
    with why:
        if evidence.other is None:
            _evidence(layout, evidence.values, evidence.name, opacity)
        else:
            _contrast(layout, evidence.values, evidence.name, evidence.other, opacity)
    if answer.view is not None:
        height, width = answer.view.image.shape[:2]
        view.image(
            markup.picture_url(overlay.lay_out(Image.fromarray(answer.view.image)).image),
            caption=f"What the model sees, {width} x {height} pixels",
            alt="The picture after trimming and scaling, as the model sees it",
            width="stretch",
        )


def _evidence(layout: overlay.Layout, cam: Floats, name: str, opacity: float) -> None:
    if not overlay.has_evidence(cam):
        st.info(
            f"**No positive evidence for this class.** Nothing in the picture speaks for {markup.plain(name)}, "
            "so there is no map to show.",
            icon=":material/info:",
        )
        return
    st.image(
        markup.picture_url(overlay.paint(layout, cam, opacity=opacity)),
        caption=f"Evidence for {markup.plain(name)}",
        alt=f"The picture with the places that speak for {name} in colour",
        width="stretch",
    )
    st.html(markup.scale("little", "much", sequential(np.linspace(0, 1, 9))))


def _contrast(layout: overlay.Layout, difference: Floats, name: str, other: str, opacity: float) -> None:
    st.image(
        markup.picture_url(overlay.paint_contrast(layout, difference, opacity=opacity)),
        caption=f"Evidence for {markup.plain(name)} rather than {markup.plain(other)}",
        alt=f"The picture with the places that speak for {name} in orange and for {other} in purple",
        width="stretch",
    )
    st.html(markup.scale(other, name, diverging(np.linspace(-overlay.PAINTED_RANGE, overlay.PAINTED_RANGE, 9))))


def _raw_numbers(evidence: _Shown) -> None:
    values, below = evidence.values, "" if evidence.fine else " What is below zero is left out of the picture."
    if evidence.other is None:
        meaning = f"{evidence.name}: {'' if evidence.fine else 'signed '}evidence in logit units.{below}"
    else:
        meaning = f"{evidence.name} minus {evidence.other}, in logit units."
    height, width = values.shape
    strongest = float(np.abs(values).max()) or 1.0
    st.html(markup.grid(values, diverging(values / strongest), meaning))
    st.caption(
        f"{markup.plain(meaning)} {'LayerCAM' if evidence.fine else 'Grad-CAM'} on a grid of {height} x {width} cells, "
        "laid over the part that the model sees. The picture shows it smoothed; no detail finer than a cell is meant."
    )
