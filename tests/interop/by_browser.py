"""A page in Chromium, from an origin of its own, in which matrix-js-sdk is given the address of `lowband proxy` for that of its homeserver; and what
a person sees of the proxy there.
"""

import time

from far import FarWorld
from program import Program
from shore import Shore
from shore import is_
from shore import message
from transcript import compact
from transcript import cut
from world import PATIENCE
from world import ROOT

TITLE = "a page in Chromium with lowband proxy, over hf-100 a hundred times as fast"
BOB = "@bob:lowband.test"
WAITING = ["Are you there?", "The link is gone, I think", "Never mind"]
PICTURE = ROOT / "docs/proxy-status.png"


class World(FarWorld):
    """One of a minute."""

    SPEED = 100


WORLD = World


class Conversation:
    """Alice's browser, at the far end, and bob, beside the homeserver."""

    def __init__(self, world, transcript):
        self.world = world
        self.transcript = transcript
        self.browser = self.bob = self.room = None

    def take(self, step):
        step(self)

    def close(self):
        if self.browser:
            self.browser.ask("closes")
            self.browser.close()

    def does(self, what, does, **given):
        """What came of something that happens in the browser."""
        started = time.monotonic()
        value = self.browser.ask(does, **given)
        self.transcript.block(f"browser> {what}\n< {cut(compact(value), 1_200)} after {time.monotonic() - started:.1f} s")
        return value

    def asks(self, which, **given):
        return self.does(which, "asks", which=which, given=given)

    def counters(self):
        return self.world.proxy_status()["counters"]


def opens_a_page(talk):
    """The operator adds the device; the proxy begins; a browser opens a page of another origin"""
    talk.world.register("alice", "bob")
    talk.transcript.block(talk.world.begin("alice"))
    talk.bob = Shore(talk.world, "bob")
    room = {"name": "Radio 📻", "preset": "trusted_private_chat", "invite": ["@alice:lowband.test"]}
    talk.room = talk.bob.does("POST", "createRoom", room)["room_id"]
    talk.browser = Program("browser.mjs", talk.world.directory / "browser.log")
    opened = talk.does("opens", "opens", profile=str(talk.world.directory / "chromium"))
    assert opened["origin"] != talk.world.proxy


def talks(talk):
    """The page logs in, joins, sends and shows what comes; what browsers ask beforehand does not cross the link"""
    logged_in = talk.asks("logsIn", url=talk.world.proxy, user="alice", password="correct horse")
    assert logged_in["origin"] != talk.world.proxy and logged_in["user"] == "@alice:lowband.test"
    talk.asks("calls", method="joinRoom", given=[talk.room])
    before = talk.counters()
    sent = talk.asks("calls", method="sendTextMessage", given=[talk.room, "Hello from a page"])["event_id"]
    after = talk.counters()
    # The message, and before it a question of the browser's whether the page may; looking at the counters is answered here, too.
    assert after["requests"] - before["requests"] >= 3 and after["local"] - before["local"] >= 2, (before, after)
    assert talk.bob.hears(is_("m.room.message", body="Hello from a page"), talk.room)["event_id"] == sent
    talk.bob.sends(talk.room, message("Hello from the shore"))
    talk.does("shows Hello from the shore", "shows", text="Hello from the shore")
    counters = talk.counters()
    talk.transcript.block(f"$ curl -s {talk.world.proxy}/_lowband/status\n{cut(compact(counters), 1_200)}")
    assert counters["local"] > counters["asked"] / 2, counters


def waits_for_the_link(talk):
    """The link goes; three messages wait, and the proxy's page says so; the link comes back, and they are sent"""
    address = talk.world.gateway.removeprefix("coap://")
    talk.world.end_relay()
    for text in WAITING:
        talk.asks("begins", method="sendTextMessage", given=[talk.room, text])
    # Of messages matrix-js-sdk sends one after another; other events go at once.
    talk.asks("begins", method="setRoomTopic", given=[talk.room, "Adrift"])
    talk.asks("begins", method="sendEvent", given=[talk.room, "org.example.position", {"latitude": 5410, "longitude": 788}])
    give_up = time.monotonic() + PATIENCE
    while len(talk.world.proxy_status()["queue"]) < 3 and time.monotonic() < give_up:
        time.sleep(0.1)
    status = talk.world.proxy_status()
    waiting = [entry["what"] for entry in status["queue"]]
    assert waiting == [f"{what} {talk.room}" for what in ("message to", "m.room.topic of", "org.example.position to")], status
    url = f"{talk.world.proxy}/_lowband/status"
    looked = talk.does("looks", "looks", url=url, picture=str(PICTURE) if talk.transcript.is_wanted else None, dark=False)
    assert talk.room in looked["text"] and not looked["wide"], looked
    assert [request for request in looked["requests"] if not request.startswith(talk.world.proxy)] == [], looked
    talk.world.start_relay(address)
    talk.bob.hears(is_("m.room.message", body=WAITING[-1]), talk.room)
    said = [talk.bob.event(talk.room, event) for event in talk.bob.history(talk.room)]
    texts = [event["content"]["body"] for event in said if event["type"] == "m.room.message"]
    assert texts[-3:] == WAITING, texts


STEPS = [opens_a_page, talks, waits_for_the_link]
