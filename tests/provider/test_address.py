"""Where the key may go."""

import pytest

from pipeline.errors import InputError
from pipeline.provider.credentials import check_address, find_proxy, model_url, trust_advice
from pipeline.settings import Kind, ProviderSettings


def checked(url, kind=Kind.COMETAPI):
    return check_address(ProviderSettings(kind=kind, base_url=url))


@pytest.mark.parametrize(
    ("kind", "url", "resolved"),
    [
        (Kind.COMETAPI, None, "https://api.cometapi.com"),
        (Kind.GOOGLE, None, "https://generativelanguage.googleapis.com"),
        (Kind.SIMULATOR, None, "http://127.0.0.1"),
        (Kind.COMETAPI, "https://example.com/", "https://example.com"),
        (Kind.COMETAPI, "https://example.com:8443/relay/", "https://example.com:8443/relay"),
        (Kind.COMETAPI, "https://api.cometapi.com/v1", "https://api.cometapi.com"),
        (Kind.COMETAPI, "\ufeffhttps://api.cometapi.com/v1beta/ ", "https://api.cometapi.com"),
        (Kind.COMETAPI, "https://api.cometapi.com/v1/v1beta", "https://api.cometapi.com"),
        (Kind.COMETAPI, "https://api.cometapi.com/v1beta/models", "https://api.cometapi.com"),
        (Kind.COMETAPI, "https://h/relay/v1beta/models/gemini-3-pro-image:generateContent", "https://h/relay"),
        (
            Kind.COMETAPI,
            "https://gw.example/v1/account/google-ai-studio",
            "https://gw.example/v1/account/google-ai-studio",
        ),
        (Kind.COMETAPI, "http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        (Kind.COMETAPI, "http://localhost:8080", "http://localhost:8080"),
        (Kind.SIMULATOR, "http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_check_address_resolves(kind, url, resolved):
    assert checked(url, kind) == resolved


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://api.cometapi.com", id="S05-http"),
        pytest.param("http://127.0.0.1.evil.example", id="S05-looks-like-loopback"),
        pytest.param("http://10.0.0.1", id="S05-private"),
        pytest.param("http://localhost.evil.example", id="S05-looks-like-localhost"),
        pytest.param("https://me:s3cret@example.com", id="S03-userinfo"),
        pytest.param("https://s3cret@example.com", id="S03-user"),
        pytest.param("https://example.com?key=s3cret", id="S03-query"),
        pytest.param("https://example.com#s3cret", id="S03-fragment"),
        pytest.param("ftp://example.com/s3cret", id="S05-scheme"),
        pytest.param("file:///etc/s3cret", id="S05-file"),
        pytest.param("example.com", id="S05-no-scheme"),
        pytest.param("https://", id="S05-no-host"),
        pytest.param("https://exa mple.com", id="S05-space"),
        pytest.param("https://example.com\r\nX: s3cret", id="S05-line"),
        pytest.param("https://example.com:99999", id="S05-port"),
        pytest.param("https://[::1", id="S05-bracket"),
    ],
)
def test_check_address_refuses_and_repeats_nothing(url):
    with pytest.raises(InputError) as caught:
        checked(url)
    assert "s3cret" not in str(caught.value)
    assert "base_url" in str(caught.value)


def test_a_simulator_is_on_this_machine():
    with pytest.raises(InputError, match="money would be real"):
        checked("https://api.cometapi.com", Kind.SIMULATOR)


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("gemini-3-pro-image", "gemini-3-pro-image"),
        ("models/gemini-3-pro-image", "gemini-3-pro-image"),
        ("../../admin?x=1#y", "..%2F..%2Fadmin%3Fx%3D1%23y"),
        ("a b\r\nc", "a%20b%0D%0Ac"),
    ],
)
def test_model_url_quotes_free_text(model, path):
    assert model_url("https://h", model) == f"https://h/v1beta/models/{path}:generateContent"


@pytest.mark.parametrize(
    ("environ", "base", "proxy"),
    [
        ({}, "https://api.cometapi.com", None),
        ({"HTTPS_PROXY": "http://p:3128"}, "https://api.cometapi.com", "http://p:3128"),
        ({"https_proxy": "p:3128"}, "https://api.cometapi.com", "http://p:3128"),
        ({"ALL_PROXY": "http://p:1"}, "https://api.cometapi.com", "http://p:1"),
        ({"HTTP_PROXY": "http://p:3128"}, "https://api.cometapi.com", None),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "cometapi.com"}, "https://api.cometapi.com", None),
        ({"HTTPS_PROXY": "http://p:3128", "no_proxy": "*"}, "https://api.cometapi.com", None),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "other.com"}, "https://api.cometapi.com", "http://p:3128"),
        ({"HTTPS_PROXY": "http://p:3128", "HTTP_PROXY": "http://p:3128"}, "http://127.0.0.1:8080", None),
        ({"HTTPS_PROXY": "http://p:3128"}, "https://localhost:8080", None),
    ],
)
def test_find_proxy_follows_the_environment(environ, base, proxy):
    found = find_proxy(base, environ)
    assert (None if found is None else found.url) == proxy


@pytest.mark.parametrize(
    ("excluded", "base", "is_excluded"),
    [
        pytest.param("*.cometapi.com", "https://api.cometapi.com", True, id="asterisk"),
        pytest.param("localhost api.cometapi.com", "https://api.cometapi.com", True, id="spaces"),
        pytest.param("localhost, api.cometapi.com:443", "https://api.cometapi.com", True, id="usual-port"),
        pytest.param("api.cometapi.com:8443", "https://api.cometapi.com", False, id="other-port"),
        pytest.param("10.0.0.0/8,localhost", "https://10.1.2.3:8443", True, id="network"),
        pytest.param("10.0.0.0/8", "https://11.1.2.3", False, id="other-network"),
        pytest.param("10.0.0.0/8,fd00::/8", "https://[fd00::1]", True, id="network-of-ipv6"),
        pytest.param("cdn/images,10.0.0.0/8", "https://10.1.2.3", True, id="network-behind-a-mistake"),
        pytest.param("::1,fd00::1", "https://[fd00:0::1]", True, id="address-of-ipv6"),
        pytest.param("10.0.0.0/99", "https://10.1.2.3", False, id="no-network"),
        pytest.param("10.0.0.0/8", "https://api.cometapi.com", False, id="network-and-name"),
    ],
)
def test_no_proxy_is_read_as_other_tools_do(excluded, base, is_excluded):
    assert (find_proxy(base, {"HTTPS_PROXY": "http://p:3128", "NO_PROXY": excluded}) is None) is is_excluded


def test_a_proxys_password_stays_apart():
    found = find_proxy("https://h", {"HTTPS_PROXY": "http://me:p%40ss@[::1]:3128"})
    assert found == ("http://[::1]:3128", ("me", "p@ss"))


@pytest.mark.parametrize("password", ["12/34", "12#34", "12?34", "a/b"])
def test_a_proxys_password_with_characters_of_an_address_is_an_input_error_that_does_not_show_it(password):
    with pytest.raises(InputError, match=r"in a password, / # \? are %2F %23 %3F") as caught:
        find_proxy("https://h", {"HTTPS_PROXY": f"http://me:{password}@p:3128"})
    assert "12" not in str(caught.value)


@pytest.mark.parametrize("url", ["socks5://p:1", "http://", "http://p:99999"])
def test_an_unusable_proxy_is_an_input_error(url):
    with pytest.raises(InputError, match="HTTPS_PROXY"):
        find_proxy("https://h", {"HTTPS_PROXY": url})


@pytest.mark.parametrize("name", ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])
def test_proxy_that_cannot_be_used_names_the_variable_that_sets_it(name):
    with pytest.raises(InputError, match=f"^{name} is not"):  # what a desktop exports for a SOCKS proxy
        find_proxy("https://api.cometapi.com", {name: "socks://127.0.0.1:7890/", "no_proxy": "localhost"})
    assert (
        find_proxy("https://api.cometapi.com", {name: "socks://127.0.0.1:7890/", "no_proxy": ".cometapi.com"}) is None
    )


def test_an_authority_that_cannot_be_read_is_said_instead_of_asked_for(tmp_path):
    (tmp_path / "company.cer").write_bytes(b"0\x82\x03")  # as Windows exports it: DER
    for file in ("company.cer", "gone.pem"):
        path = str(tmp_path / file)
        assert (
            trust_advice({"SSL_CERT_FILE": path})
            == f"SSL_CERT_FILE is {path}, which cannot be read as certificates in PEM form"
        )
    assert "SSL_CERT_FILE names its certificate" in trust_advice({})
