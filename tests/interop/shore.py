"""A user who speaks with the homeserver itself, by plain HTTP."""

import time
import urllib.parse

from slow import SLOW_PATIENCE
from world import login


class Shore:
    """One who is logged in."""

    def __init__(self, world, name):
        self.world = world
        answer = self.world.http("POST", "/_matrix/client/v3/login", None, login(name))[1]
        self.user, self.token = answer["user_id"], answer["access_token"]
        self.since = None
        self.transactions = 0
        self.events = []

    def does(self, method, path, body=None):
        """The body of an answer that must be of success."""
        status, answer = self.world.http(method, f"/_matrix/client/v3/{path}", self.token, body)
        assert status == 200, (path, status, answer)
        return answer

    def joins(self, room):
        self.does("POST", f"join/{quoted(room)}", {})

    def sends(self, room, content, kind="m.room.message"):
        """The id of the event."""
        self.transactions += 1
        path = f"rooms/{quoted(room)}/send/{kind}/shore{self.transactions}"
        return self.does("PUT", path, content)["event_id"]

    def hears(self, wanted, room):
        """Syncs until an event of a room is what is wanted, be it one that passes like a receipt; the event."""
        give_up = time.monotonic() + SLOW_PATIENCE
        while time.monotonic() < give_up:
            found = [event for of, event in self.events if of == room and wanted(event)]
            if found:
                return found[0]
            position = f"&since={self.since}" if self.since else ""
            sync = self.does("GET", f"sync?timeout=1000{position}")
            self.since = sync["next_batch"]
            rooms = sync.get("rooms", {})
            for of, joined in rooms.get("join", {}).items():
                parts = "state", "timeline", "ephemeral"
                self.events += [(of, event) for part in parts for event in joined.get(part, {}).get("events", [])]
            for of, invited in rooms.get("invite", {}).items():
                self.events += [(of, event) for event in invited["invite_state"]["events"]]
        raise AssertionError("it does not come")

    def event(self, room, event):
        return self.does("GET", f"rooms/{quoted(room)}/event/{quoted(event)}")

    def profile(self, user):
        return self.does("GET", f"profile/{quoted(user)}")

    def history(self, room):
        """The ids of all events of a room, the first one first."""
        page = self.does("GET", f"rooms/{quoted(room)}/messages?dir=b&limit=200")
        return [event["event_id"] for event in reversed(page["chunk"])]


def quoted(text):
    return urllib.parse.quote(text, safe="")


def is_(kind, **content):
    """Whether an event is of a kind, and has in its content what is given."""
    return lambda event: event["type"] == kind and all(event["content"].get(name) == value for name, value in content.items())


def message(text):
    return {"msgtype": "m.text", "body": text}


def edit(event, text):
    relation = {"rel_type": "m.replace", "event_id": event}
    return {**message(f"* {text}"), "m.new_content": message(text), "m.relates_to": relation}


def reaction(event, key):
    return {"m.relates_to": {"rel_type": "m.annotation", "event_id": event, "key": key}}


def reply(event, text):
    return {**message(text), "m.relates_to": {"m.in_reply_to": {"event_id": event}}}
