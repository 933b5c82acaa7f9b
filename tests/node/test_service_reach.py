"""Where workers may connect to."""

from dataclasses import replace

from parties.governance.studies import study_of
from parties.node.reach import places
from tests.node.test_service_library import Members
from tests.node.world import study_fields

WHERE = {
    "city": ("city.example:8443", None),
    "north": ("[2001:db8::1]:9000", "https://relay.example"),
    "south": (None, "https://relay.example"),
    "other": ("other.example:1", None),
}


def test_the_others_of_the_study_and_what_leads_to_them() -> None:
    study = study_of(study_fields())
    consortium = Members().consortium
    members = (replace(one, address=WHERE[one.name][0], relay=WHERE[one.name][1]) for one in consortium.members)
    consortium = replace(consortium, members=tuple(members))
    others = ("[2001:db8::1]:9000", "relay.example:443")
    assert places(study, consortium, "city", None) == others
    assert places(study, consortium, "south", None) == ("city.example:8443", *others)
    proxied = places(study, consortium, "city", "http://user:secret@[::1]:3128")
    assert proxied == ("[2001:db8::1]:9000", "[::1]:3128")
    assert places(study, consortium, "city", "http://proxy.example")[1:] == ("proxy.example:80",)
