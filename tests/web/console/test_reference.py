"""Does the reference name every call, who may make it, and what goes into it?"""

import re
from html import unescape

from tests.services.plane import Stage
from tests.web.test_authentication import DECIDED


async def see(stage: Stage, path: str = "/reference") -> str:
    response = await stage.call("GET", path, who="caller")
    assert response.status_code == 200, response.text
    return " ".join(unescape(response.text).split())


async def calls(stage: Stage, path: str = "/reference") -> dict[tuple[str, str], str]:
    """Each call and what is said of it."""
    found = re.findall(
        r'<span class="method">(\w+)</span> <code>([^<]+)</code></h2>(.*?)</section>', await see(stage, path)
    )
    return {(method, address): said for method, address, said in found}


async def test_every_call_of_the_interface_is_named_with_its_roles(stage: Stage) -> None:
    named = await calls(stage)
    for (method, path), roles in DECIDED.items():
        if path.startswith("/v1/"):
            said = named[method, re.sub(r":\w+}", "}", path)]
            (who,) = re.findall(r"<dt>For</dt><dd>(.*?)</dd>", said)
            assert set(who.split(", ")) - {"admin"} == set(roles or ()), path


async def test_a_call_tells_what_goes_into_it(stage: Stage) -> None:
    said = (await calls(stage))["POST", "/v1/rollouts/{name}/promote"]
    assert '<code>to</code> <span class="soft">Phase</span>' in said
    assert "when the gate passes" in said


async def test_no_call_is_described_by_the_framework(stage: Stage) -> None:
    assert "thread pool" not in await see(stage)


async def test_a_search_keeps_what_fits(stage: Stage) -> None:
    found = await calls(stage, "/reference?q=KILL")
    assert list(found) == [("POST", "/v1/kill-switch")]
    assert "No call fits" in await see(stage, "/reference?q=nowhere")
