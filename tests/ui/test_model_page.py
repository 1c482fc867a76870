"""The second page: what is served and how to call it."""

from streamlit.testing.v1 import AppTest


def run_page() -> None:
    """The page alone, as Streamlit's navigation runs it."""
    from ui.pages import model

    model.page()


def opened() -> AppTest:
    return AppTest.from_function(run_page, default_timeout=60).run()


def html(page: AppTest) -> str:
    return "\n".join(element.proto.body for element in page.html)


def test_says_what_is_served(environment, serving):
    serving.version = 7
    page = opened()
    assert not page.exception
    assert "version <b>7</b>" in html(page)
    assert "ready" in html(page)
    assert html(page).count("vt-chip") == 10
    table = page.table[0].value
    assert table.iloc[0].tolist() == ["serving_default", "`image_bytes` string (N)", "`probabilities` float (N, 10)"]


def test_snippets_name_the_address_and_the_user_but_not_the_password(environment, serving, monkeypatch):
    monkeypatch.setenv("GATEWAY_USER", "vitrine")
    monkeypatch.setenv("GATEWAY_PASSWORD", "hunter2hunter2")
    page = opened()
    snippets = [code.value for code in page.code]
    assert len(snippets) == 3
    assert all("http" in snippet and "vitrine" in snippet and "fashion_mnist" in snippet for snippet in snippets)
    assert "hunter2" not in "".join(snippets) + html(page)
    for snippet in snippets[1:]:
        compile(snippet, "snippet", "exec")


def test_the_snippets_stay_when_the_server_is_away(environment, serving):
    serving.mode = 503
    page = opened()
    assert not page.exception
    assert "The model server is away" in page.error[0].value
    assert len(page.code) == 3
