"""Holds the conversations, one after the other, each with a homeserver and a gateway of its own."""

import argparse
import pathlib
import sys
import traceback

import by_aiocoap
import by_aiocoap_dtls
import by_aiocoap_edhoc
import by_aiocoap_oscore
import by_aiocoap_slowly
import by_bot_sdk
import by_browser
import by_dtls
import by_js_sdk
import by_libcoap
import by_libcoap_slowly
import by_nio
import by_session
from transcript import Transcript
from world import World

CONVERSATIONS = {
    "libcoap": by_libcoap,
    "aiocoap": by_aiocoap,
    "aiocoap-oscore": by_aiocoap_oscore,
    "aiocoap-edhoc": by_aiocoap_edhoc,
    "libcoap-hf-100": by_libcoap_slowly,
    "aiocoap-hf-100": by_aiocoap_slowly,
    "libcoap-dtls": by_dtls,
    "aiocoap-dtls": by_aiocoap_dtls,
    "nio": by_nio,
    "js-sdk": by_js_sdk,
    "bot-sdk": by_bot_sdk,
    "browser": by_browser,
    "session": by_session,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lowband", type=pathlib.Path, default="target/debug/lowband")
    parser.add_argument("--transcripts", type=pathlib.Path)
    parser.add_argument("only", nargs="?", choices=CONVERSATIONS)
    arguments = parser.parse_args()
    passed = failed = 0
    for name, conversation in CONVERSATIONS.items():
        if arguments.only in (None, name):
            done, error = hold_until_fair(name, conversation, arguments)
            passed += done
            failed += error
    print(f"interop: {passed} passed, {failed} failed")
    sys.exit(failed > 0)


def hold_until_fair(name, conversation, arguments):
    """Holds a conversation, and again under another seed where its client could not hold it: see `SlowWorld.is_unfair`."""
    unfair = []
    for seed in getattr(conversation, "SEEDS", [None]):
        done, error = hold(name, conversation, arguments, seed, unfair)
        if not error or len(unfair) == 0 or not unfair.pop():
            return done, error
        print(f"{name}: seed {seed} lost an acknowledgement of the client's, which it does not give again", flush=True)
    return done, error


def hold(name, conversation, arguments, seed, unfair):
    """Takes the steps of a conversation in turn; each needs those before it, so the first that fails is the last."""
    transcript = Transcript(f"A conversation by {conversation.TITLE}", name, arguments.transcripts is not None)
    done = 0
    world = getattr(conversation, "WORLD", World)(arguments.lowband)
    if seed is not None:
        world.SEED = seed
    with world:
        talk = conversation.Conversation(world, transcript)
        try:
            for step in conversation.STEPS:
                transcript.section(step.__doc__.strip().replace("\n    ", "\n"))
                talk.take(step)
                done += 1
                print(f"ok {name}: {step.__name__}", flush=True)
        except Exception:
            traceback.print_exc()
            print(f"FAILED {name}: {step.__name__}; what was said:\n{transcript.text()[-4000:]}", flush=True)
            print(f"the gateway said:\n{world.gateway_log()[-2000:]}", flush=True)
            if seed is not None:
                unfair.append(world.is_unfair())
            return done, 1
        finally:
            talk.close()
    if arguments.transcripts:
        arguments.transcripts.mkdir(parents=True, exist_ok=True)
        (arguments.transcripts / f"{name}.md").write_text(transcript.text())
    return done, 0


if __name__ == "__main__":
    main()
