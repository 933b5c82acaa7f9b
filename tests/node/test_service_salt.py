"""All members read the digest of a result; who is no recipient must not be able to check a guess with it."""

from pathlib import Path
from typing import Any

from parties.node.messages import Finished, result_digest
from tests.node.support import on_uvloop
from tests.node.teams import SUMMED, Team, study_with, team


def run(place: Path, **fields: Any) -> Team:
    place.mkdir()

    async def main() -> Team:
        async with team(place, study_with(**fields)) as members:
            await members.run()
            return members

    done: Team = on_uvloop(main())
    assert [type(member.last) for member in done.members] == [Finished] * len(done.members), done.members
    return done


def test_the_digest_says_nothing_without_the_salt(tmp_path: Path) -> None:
    done = run(tmp_path / "first", recipients=["city", "south"])
    city, south = done["city"].last, done["south"].last
    assert city.digest == south.digest == result_digest(city.result)
    assert city.result["analyses"]["sums"]["values"] == SUMMED
    assert len(bytes.fromhex(city.result["salt"])) == 32
    # Whoever guesses the result, down to its form, does not see that the guess was right.
    guess = {name: value for name, value in city.result.items() if name != "salt"}
    assert city.digest not in (result_digest(guess), result_digest({**guess, "salt": ""}))
    assert city.result["salt"] not in city.result["summary"]
    # Nor is the salt anywhere at the third: what its worker says is all that its node has.
    assert not any(city.result["salt"] in repr(event.model_dump()) for event in done["north"].events)
    again = run(tmp_path / "again", recipients=["city"])
    assert again["city"].last.result["salt"] != city.result["salt"]
    assert {name: again["city"].last.result[name] for name in guess} == guess
