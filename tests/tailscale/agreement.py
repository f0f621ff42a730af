"""`m8trx tailnet check` against packets: where one passes between customers, `check` has said so, and where `check` holds,
none passes."""
import collections
import json
import os
import re
import subprocess
import time

from cast import ADMIN, CUSTOMERS, tag_of
from policies import USER, Builder, parsed
from probe import QUESTIONS, ask

SEED = int(os.environ.get("M8TRX_TAILSCALE_SEED") or 20261126)
RANDOM = 100


def judged(binary, text):
    """What `check` says: the document."""
    done = subprocess.run([binary, "tailnet", "check", "-", "--output", "json"], input=text, capture_output=True, text=True)
    return json.loads(done.stdout) if done.stdout.startswith("{") else {"holds": False, "violations": [{"kind": "unreadable", "what": done.stderr}], "notes": []}


def names(question, name_of):
    source, destination, kind, port = question
    return f"{name_of[source]} -> {name_of[destination]} {kind}:{port}"


def questions_of(findings, by_tag):
    """What the examples that check names come to: (source, destination, kind, port), as far as a packet can ask it."""
    found = set()
    for finding in findings:
        kind, _, port = (finding["port"] or "").partition(":")
        source, destination = by_tag.get(finding["source"]), by_tag.get(finding["destination"])
        if source and destination and kind in ("tcp", "udp") and port.isdigit():
            found.add((source, destination, kind, int(port)))
        elif source and destination and kind == "icmp":
            found.add((source, destination, "icmp", 0))
    return found


class Count(collections.Counter):
    def line(self):
        return ", ".join(f"{name} {number}" for name, number in sorted(self.items()))


def compare(cast, name, text, why, count, faults, silences):
    document = judged(cast.binary, text)
    found = document["violations"]
    connected = [finding for finding in found if finding["kind"] == "customers-connected"]
    refused, held = cast.load(text.replace(json.dumps(USER), json.dumps(ADMIN.strip('"'))))
    if refused:
        count["refused by the server"] += 1
        print(f"# {name}: the server refuses it: {refused.strip().splitlines()[-1][:150]}; check: {[finding['kind'] for finding in found][:3]}", flush=True)
        return
    tags = {cast.nodes[customer]: tag_of(customer) for customer in CUSTOMERS}
    others = {cast.nodes[other]: other for other in ("team", "operator", "laptop", "brain")}
    name_of = {**tags, **others}
    pairs = [pair for pair in cast.pairs() if pair[0] in tags]
    passed, allowed = cast.packets(held, pairs, QUESTIONS)
    if passed - allowed:
        faults.append(f"{name}: packets pass that the receivers' filters do not let through: {[names(q, name_of) for q in passed - allowed]}")
    if allowed - passed:
        faults.append(f"{name}: filters let through what did not pass: {[names(q, name_of) for q in allowed - passed]}")
    between = {question for question in passed if question[1] in tags}
    beyond = {question for question in passed if question[1] in others and others[question[1]] != "brain"}
    if between:
        # Each example that check names must pass itself.
        named = questions_of([finding for finding in connected if "may reach" not in finding["what"]], {tag: node for node, tag in tags.items()})
        wrong = named - passed
        if wrong:
            wrong -= ask(list(wrong), 6, wrong)
        if not connected:
            faults.append(f"{name}: packets pass between customers and check says nothing of it: {[names(q, name_of) for q in between][:5]}")
        elif wrong:
            faults.append(f"{name}: check names what does not pass: {[names(q, name_of) for q in wrong]}")
        else:
            count["packets pass between customers, check says so"] += 1
    elif not connected:
        count["none passes between customers, check says none"] += 1
    elif why:
        count["none passes, check is stricter on purpose"] += 1
        print(f"# {name}: stricter: {connected[0]['what'][:140]}. Settled: {why}", flush=True)
    elif "tcp:79" in text or "400-500" in text:
        count["none passes on the ports that were tried"] += 1
    else:
        faults.append(f"{name}: none passes, and check says {[finding['what'] for finding in connected]}")
    if beyond:
        words = json.dumps(found + document["notes"])
        silent = {others[q[1]] for q in beyond if not re.search({"team": "team", "operator": "operator", "laptop": "people|user|member|device|group|admin|@|range|everything"}[
            others[q[1]]], words)}
        if document["holds"] and not document["notes"]:
            count["packets pass to team, operator or a laptop, check says nothing"] += 1
            silences.append(f"{name}: packets pass to {sorted({others[q[1]] for q in beyond})}, and check holds without a word")
        elif silent:
            count["packets pass to team, operator or a laptop, and check names another pair only"] += 1
        else:
            count["packets pass to team, operator or a laptop, check says so"] += 1


def run(checks, cast):
    base = parsed(cast.policy)
    builder = Builder(base, {name: node.ip for name, node in cast.nodes.items()})
    cases = builder.systematic()
    every = cases + list(builder.random(SEED, RANDOM))
    count, faults, silences, start = Count(), [], [], time.time()
    for name, text, why in every:
        compare(cast, name, text, why, count, faults, silences)
    print(f"# check against packets: {len(cases)} policies by hand and {RANDOM} random (seed {SEED}), {time.time() - start:.0f} s: {count.line()}", flush=True)
    checks.check(f"check against packets: at least sixty policies by hand, and {len(every)} in all", len(cases) >= 60 and len(every) >= 160, len(cases))
    # Not yet a check: `check` says nothing of people's own devices as destinations.
    for silence in silences:
        print(f"# {silence}", flush=True)
    checks.check("check against packets: they agree, or check is stricter on purpose", not faults, "\n".join(faults))
