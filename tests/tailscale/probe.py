"""Packets between nodes: what of TCP, UDP and ICMP gets through, all pairs at once.

A refused connection is a packet that passed. The first packet between two nodes may take seconds, so nothing counts as
"nothing" unless the receiver's own filter, as its daemon holds it, agrees.
"""
import errno
import ipaddress
import os
import select
import socket
import struct
import threading
import time

TCP_PORTS, UDP_PORTS = (22, 80, 443, 8080, 9000), (53, 8080, 9000)
NUMBERS = {"tcp": 6, "udp": 17, "icmp": 1}
# Every question that is put to a pair of nodes.
QUESTIONS = [("tcp", port) for port in TCP_PORTS] + [("udp", port) for port in UDP_PORTS] + [("icmp", 0)]


def echo(node):
    """UDP ports that answer on a node, until the program ends. TCP needs none: it refuses."""
    for port in UDP_PORTS:
        def make(port=port):
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.bind(("0.0.0.0", port))
            return made
        threading.Thread(target=_echo, args=(node.space.inside(make),), daemon=True).start()


def _echo(server):
    while True:
        try:
            data, sender = server.recvfrom(100)
            server.sendto(data, sender)
        except OSError:
            pass  # an answer that could not be sent


class Question:
    """One try: whether something from a node gets to an address."""

    def __init__(self, source, address, kind, port):
        self.kind, self.target, self.passed, self.sent = kind, (address, port), False, 0.0
        self.mark = os.urandom(2)

        def make():
            if kind == "icmp":
                return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
            return socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
        self.socket = source.space.inside(make)
        self.socket.setblocking(False)
        if kind == "tcp":
            code = self.socket.connect_ex(self.target)
            self.passed = code in (0, errno.ECONNREFUSED)
        else:
            self.socket.connect(self.target)

    def send(self):
        """Once more, since a datagram may be lost while the two nodes get to know each other."""
        if self.kind == "tcp" or time.time() - self.sent < 0.3:
            return
        self.sent = time.time()
        packet = self.mark
        if self.kind == "icmp":
            packet = struct.pack("!BBH2sH", 8, 0, 0, self.mark, 1)
            total = sum(struct.unpack("!4H", packet))
            packet = struct.pack("!BBH2sH", 8, 0, ~((total & 0xffff) + (total >> 16)) & 0xffff, self.mark, 1)
        try:
            self.socket.send(packet)
        except OSError:
            pass

    def event(self):
        if self.kind == "tcp":
            code = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self.passed = code in (0, errno.ECONNREFUSED)
            return
        try:
            data = self.socket.recv(200)
        except ConnectionRefusedError:
            self.passed = True
            return
        except OSError:
            return
        if self.kind == "icmp":
            data = data[(data[0] & 15) * 4:]
            self.passed = self.passed or (data[0] == 0 and data[4:6] == self.mark)
        else:
            self.passed = self.passed or data == self.mark


def ask(questions, timeout, expected=None):
    """Puts all of (source, destination, kind, port) at once; the set of those that passed. Ends early when all that are
    `expected` have passed and a second has gone by."""
    asked = {question: Question(question[0], question[1].ip, *question[2:]) for question in questions}
    poll, by_descriptor, start = select.poll(), {}, time.time()
    for question in asked.values():
        poll.register(question.socket, select.POLLIN if question.kind != "tcp" else select.POLLOUT)
        by_descriptor[question.socket.fileno()] = question
    while time.time() - start < timeout:
        if expected is not None and time.time() - start > 1 and all(asked[question].passed for question in expected):
            break
        for question in asked.values():
            if not question.passed:
                question.send()
        for descriptor, _ in poll.poll(50):
            question = by_descriptor[descriptor]
            question.event()
            if question.passed or question.kind == "tcp":
                poll.unregister(descriptor)
    for question in asked.values():
        question.socket.close()
    return {key for key, question in asked.items() if question.passed}


def filters(nodes):
    """The packet filter that each node's daemon holds now."""
    found = {}
    threads = [threading.Thread(target=lambda node=node: found.update({node: node.netmap()["PacketFilter"] or []})) for node in nodes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def may_pass(packet_filter, source, destination, kind, port):
    """Whether a receiver's filter lets a packet in."""
    for rule in packet_filter:
        # Whoever may reach any port of a host may ping it, whatever the protocol of the rule.
        if not _holds(rule["Srcs"] or [], source.ip) or (kind != "icmp" and NUMBERS[kind] not in (rule["IPProto"] or [6, 17, 1, 58])):
            continue
        for target in rule["Dsts"] or []:
            ports = target["Ports"]
            if _holds([target["Net"]], destination.ip) and (kind == "icmp" or ports["First"] <= port <= ports["Last"]):
                return True
    return False


def _holds(networks, address):
    return any(ipaddress.ip_address(address) in ipaddress.ip_network(network) for network in networks if ":" not in network)


def expected(packet_filters, pairs):
    """All questions of these (source, destination) that the receivers' filters let through."""
    return {(source, destination, kind, port) for source, destination in pairs for kind, port in QUESTIONS
            if may_pass(packet_filters.get(destination, []), source, destination, kind, port)}
