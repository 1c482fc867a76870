"""The page's navigation: which pages there are. Run with `streamlit run ui/app.py`."""

import sys
from pathlib import Path

import streamlit as st

# A file of ours: for an icon by name the browser would ask a font server elsewhere.
ICON = Path(__file__).resolve().parent / "icon.svg"


def main() -> None:
    """Show the page that was asked for."""
    root = str(Path(__file__).resolve().parent.parent)
    if root not in sys.path:  # `streamlit run` puts only the script's own folder there
        sys.path.insert(0, root)
    from ui import markup
    from ui.pages import look, model

    # Before the navigation, or the browser asks for the icon of the page in the meantime.
    st.set_page_config(page_icon=str(ICON), layout="wide")
    # The paths differ from the names of the files: when the first visitor after a start opens /look directly, Streamlit
    # would take the folder pages/ for its own older kind of pages and run a module that shows nothing.
    page = st.navigation(
        [
            st.Page(look.page, title="Look", icon=":material/visibility:", url_path="home", default=True),
            st.Page(model.page, title="How to call it", icon=":material/terminal:", url_path="call"),
        ],
        position="top",
    )
    st.set_page_config(page_title=f"{page.title} · Vitrine")
    st.html(markup.STYLE_SHEET)
    page.run()


if __name__ == "__main__":
    main()
