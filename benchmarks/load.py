"""The load generator: virtual raters in one process of its own, one thread and one kept connection each.

    python -m benchmarks.load < plan.json

Closed loop: a rater asks for the next card, thinks, saves, and only then asks again. The plan:

    port        where the site listens on loopback
    raters      [{"seat", "link"}]: each signs in by its single-use link first, which is not measured
    invitations links for people who do not exist yet (mode "burst")
    mode        "plain":   GET next, then PUT without `holding`: two requests a rating
                "page":    as the rating page does: two cards in hand, and each PUT's answer brings one more
                "hostile": answers lost, requests cut, duplicates at once, two tabs, stale and late resends
                "burst":   everybody signs in at the same moment
    think       mean pause before each save in seconds, exponential; 0 = none
    warmup, seconds   before and during the measured window
    ledger      a file for every operation sent and what became of it

It prints {"event": "begin"} and {"event": "end"} around the window, so that the caller can read the server's
processor time, then one line with the result. Only the standard library is used.
"""

from __future__ import annotations

import collections
import contextlib
import http.client
import json
import random
import sys
import threading
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

HIGHEST = {"content": 2, "empathy": 2, "helpfulness": 2, "safety": 1}
TIMEOUT_SECONDS = 30
NO_ANSWER = (OSError, http.client.HTTPException)


@dataclass
class Operation:
    """One save as a browser sends it, and what became of it."""

    placement: str
    base_rev: int
    scores: dict[str, int]
    op_id: str
    outcome: str = "unknown"  # "acknowledged", "refused", or nobody ever answered
    rev: int | None = None

    def body(self, holding: list[str] | None = None) -> dict[str, Any]:
        sent = {
            "op_id": self.op_id,
            "base_rev": self.base_rev,
            "scores": self.scores,
            "is_final": True,
            "active_ms": 1500,
            "hidden_ms": 0,
            "idle_ms": 0,
        }
        return sent if holding is None else sent | {"holding": holding}


@dataclass
class Run:
    """What all virtual raters share."""

    plan: dict[str, Any]
    samples: list[tuple[str, float, float, int]] = field(default_factory=list)  # kind, end, seconds, bytes
    operations: list[Operation] = field(default_factory=list)
    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    stop: threading.Event = field(default_factory=threading.Event)
    ran_out: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, what: str) -> None:
        with self.lock:
            self.counts[what] += 1


class Browser:
    """Cookies, the CSRF token and one kept connection."""

    def __init__(self, run: Run, cookies: dict[str, str] | None = None) -> None:
        self.run = run
        self.port = run.plan["port"]
        self.cookies = {} if cookies is None else cookies  # shared by the tabs of one browser
        self.connection: http.client.HTTPConnection | None = None
        self.n_bytes = 0

    def close(self) -> None:
        if self.connection:
            self.connection.close()
            self.connection = None

    def _headers(self, method: str) -> dict[str, str]:
        headers = {
            "Host": f"127.0.0.1:{self.port}",
            "X-Forwarded-Proto": "https",  # as the proxy in front would say
            "Accept": "application/json",
            "Cookie": "; ".join(f"{k}={v}" for k, v in self.cookies.items()),
        }
        if method not in ("GET", "HEAD"):
            headers["Origin"] = f"https://127.0.0.1:{self.port}"
            headers["X-CSRFToken"] = self.cookies.get("__Host-csrftoken", "")
        return headers

    def send(self, method: str, path: str, data: Any = None, *, form: bool = False) -> None:
        headers = self._headers(method)
        body = None
        if form:
            body, headers["Content-Type"] = b"", "application/x-www-form-urlencoded"
        elif data is not None:
            body, headers["Content-Type"] = json.dumps(data).encode(), "application/json"
        if self.connection is None:
            self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_SECONDS)
        self.connection.request(method, path, body, headers)

    def receive(self) -> tuple[int, bytes, dict[str, str]]:
        assert self.connection
        answer = self.connection.getresponse()
        body = answer.read()
        headers = dict(answer.getheaders())
        self.n_bytes = len(body) + sum(len(k) + len(v) + 4 for k, v in headers.items())
        for line in answer.headers.get_all("Set-Cookie") or ():
            name, _equals, value = line.partition(";")[0].partition("=")
            self.cookies[name] = value
        return answer.status, body, headers

    def cut(self, method: str, path: str, data: Any) -> None:
        """Send the head and half of the body, then hang up."""
        body = json.dumps(data).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_SECONDS)
        connection.putrequest(method, path, skip_host=True)
        for name, value in self._headers(method).items():
            connection.putheader(name, value)
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders()
        connection.send(body[: len(body) // 2])
        connection.close()

    def ask(self, method: str, path: str, data: Any = None, *, form: bool = False) -> tuple[int, bytes, dict[str, str]]:
        """One exchange; a kept connection that the server has closed meanwhile is opened again, once."""
        was_kept = self.connection is not None
        try:
            self.send(method, path, data, form=form)
            return self.receive()
        except NO_ANSWER as error:
            self.close()
            if not was_kept or isinstance(error, TimeoutError):
                raise
        self.run.count("kept connection was closed")
        try:
            self.send(method, path, data, form=form)
            return self.receive()
        except NO_ANSWER:
            self.close()
            raise

    def sign_in(self, link: str) -> None:
        """Through the single-use link, as a person does: look, then press the button."""
        path = f"/join/{link}/"
        status, body, _headers = self.ask("GET", path)
        if status != 200:
            raise RuntimeError(f"GET {path} answered {status}: {body[:300]!r}")
        status, body, _headers = self.ask("POST", path, form=True)
        if status != 302:
            raise RuntimeError(f"POST {path} answered {status}: {body[:300]!r}")


class Rater(threading.Thread):
    """One virtual rater."""

    def __init__(self, run: Run, seat: str, link: str, number: int) -> None:
        super().__init__(daemon=True)
        self.run_, self.seat, self.link = run, seat, link
        self.rng = random.Random(f"{run.plan.get('seed', 1)}/{number}")
        self.browser = Browser(run)

    # -- one request, timed --------------------------------------------------------------------------------

    def timed(self, kind: str, method: str, path: str, data: Any = None) -> tuple[int, Any]:
        started = time.perf_counter()
        try:
            status, body, _headers = self.browser.ask(method, path, data)
        except NO_ANSWER as error:
            self.run_.count(f"{kind}: {type(error).__name__}")
            return 0, None
        ended = time.perf_counter()
        if status != 200:
            self.run_.count(f"{kind}: {status}")
            return status, None
        self.run_.samples.append((kind, ended, ended - started, self.browser.n_bytes))
        return status, json.loads(body)

    def next_path(self, holding: list[str]) -> str:
        query = "&".join(f"holding={one}" for one in holding)
        return f"/api/v1/seats/{self.seat}/next" + (f"?{query}" if query else "")

    def operation(self, card: dict[str, Any], base_rev: int | None = None) -> Operation:
        operation = Operation(
            placement=card["public_id"],
            base_rev=card["rev"] if base_rev is None else base_rev,
            scores={key: self.rng.randint(0, highest) for key, highest in HIGHEST.items()},
            op_id=str(uuid.UUID(int=self.rng.getrandbits(128), version=4)),
        )
        self.run_.operations.append(operation)
        return operation

    def pause(self) -> None:
        if mean := self.run_.plan["think"]:
            self.run_.stop.wait(self.rng.expovariate(1 / mean))

    # -- the ways to rate ----------------------------------------------------------------------------------

    def run(self) -> None:
        if self.run_.plan["think"]:  # people do not start on the same beat
            self.run_.stop.wait(self.rng.uniform(0, self.run_.plan["think"]))
        {"plain": self.rate_plainly, "page": self.rate_as_the_page_does, "hostile": self.rate_under_attack}[
            self.run_.plan["mode"]
        ]()
        self.browser.close()

    def rate_plainly(self) -> None:
        while not self.run_.stop.is_set():
            status, answer = self.timed("next", "GET", self.next_path([]))
            if status != 200:
                time.sleep(0.05)
                continue
            if answer["card"] is None:
                self.run_.ran_out.set()
                return
            self.pause()
            if self.run_.stop.is_set():
                return
            self.save(self.operation(answer["card"]), "save", None)

    def rate_as_the_page_does(self) -> None:
        held: list[dict[str, Any]] = []
        while not self.run_.stop.is_set():
            while len(held) < 2:
                status, answer = self.timed("prefetch", "GET", self.next_path([c["public_id"] for c in held]))
                if status != 200:
                    time.sleep(0.05)
                    continue
                if answer["card"] is None:
                    self.run_.ran_out.set()
                    return
                held.append(answer["card"])
            self.pause()
            if self.run_.stop.is_set():
                return
            shown = held.pop(0)
            answer = self.save(self.operation(shown), "turn", [c["public_id"] for c in held])
            if answer and answer.get("next"):
                held.append(answer["next"])

    def save(self, operation: Operation, kind: str, holding: list[str] | None) -> Any:
        """Send until it is answered, as the page's outbox does."""
        path = f"/api/v1/placements/{operation.placement}/rating"
        while True:
            status, answer = self.timed(kind, "PUT", path, operation.body(holding))
            if status == 200:
                operation.outcome, operation.rev = "acknowledged", answer["rev"]
                return answer
            if 400 <= status < 500:
                operation.outcome = "refused"
                return None
            if self.run_.stop.wait(0.1):
                return None

    # -- under attack --------------------------------------------------------------------------------------

    def deliver(self, operation: Operation, browser: Browser | None = None) -> int:
        """Send until there is a clear answer; returns its status. Checks that a resend gets the same answer."""
        browser = browser or self.browser
        path = f"/api/v1/placements/{operation.placement}/rating"
        for _attempt in range(200):
            try:
                status, body, _headers = browser.ask("PUT", path, operation.body())
            except NO_ANSWER:
                self.run_.count("no answer, sent again")
                time.sleep(0.05)
                continue
            if status == 200:
                answer = json.loads(body)
                if operation.rev not in (None, answer["rev"]) or answer["op_id"] != operation.op_id:
                    self.run_.count("RESEND GOT ANOTHER ANSWER")
                operation.outcome, operation.rev = "acknowledged", answer["rev"]
                return status
            if status == 409:
                if operation.outcome == "unknown":
                    operation.outcome = "refused"
                return status
            self.run_.count(f"answer {status}")
            if status < 500:
                return status
            time.sleep(0.05)
        raise RuntimeError("the site does not come back")

    def send_and_vanish(self, operation: Operation) -> None:
        """The whole request leaves; nobody waits for the answer."""
        tab = Browser(self.run_, self.browser.cookies)
        with contextlib.suppress(*NO_ANSWER):
            tab.send("PUT", f"/api/v1/placements/{operation.placement}/rating", operation.body())
            time.sleep(self.rng.choice([0, 0.002, 0.01, 0.03]))
        tab.close()

    def at_once(self, *operations: Operation) -> list[int]:
        """Deliver all of them at the same moment, each over a connection of its own."""
        gate = threading.Barrier(len(operations))
        statuses = [0] * len(operations)

        def one(index: int) -> None:
            tab = Browser(self.run_, self.browser.cookies)
            gate.wait()
            statuses[index] = self.deliver(operations[index], tab)
            tab.close()

        threads = [threading.Thread(target=one, args=(i,)) for i in range(len(operations))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return statuses

    def rate_under_attack(self) -> None:
        chance = self.rng.random
        while not self.run_.stop.is_set():
            if chance() < 0.1:  # the answer to "next" is lost, too
                tab = Browser(self.run_, self.browser.cookies)
                with contextlib.suppress(*NO_ANSWER):
                    tab.send("GET", self.next_path([]))
                tab.close()
            status, answer = self.timed("next", "GET", self.next_path([]))
            if status != 200:
                time.sleep(0.05)
                continue
            card = answer["card"]
            if card is None:
                self.run_.ran_out.set()
                return
            first = self.operation(card)
            dice = chance()
            if dice < 0.20:
                self.run_.count("answers thrown away")
                self.send_and_vanish(first)
                self.deliver(first)
            elif dice < 0.25:
                self.run_.count("requests cut in half")
                self.browser.cut("PUT", f"/api/v1/placements/{first.placement}/rating", first.body())
                self.deliver(first)
            elif dice < 0.40:
                self.run_.count("duplicates at once")
                if self.at_once(first, first) != [200, 200]:
                    self.run_.count("A DUPLICATE WAS REFUSED")
            elif dice < 0.50:
                self.run_.count("two tabs at once")
                second = self.operation(card)
                if sorted(self.at_once(first, second)) != [200, 409]:
                    self.run_.count("TWO TABS DID NOT END AS 200 AND 409")
                if first.outcome == "refused":
                    first = second
            else:
                self.deliver(first)
            if chance() < 0.15 and first.rev is not None:
                revised = self.operation(card, base_rev=first.rev)
                self.deliver(revised)
                if chance() < 0.5:
                    self.run_.count("late resends")
                    self.deliver(first)
                if chance() < 0.5:
                    self.run_.count("stale saves")
                    if self.deliver(self.operation(card, base_rev=first.rev)) != 409:
                        self.run_.count("A STALE SAVE WAS TAKEN")


# --- Runs ------------------------------------------------------------------------------------------------


def tell(event: str) -> None:
    print(json.dumps({"event": event}), flush=True)


def in_groups(work: list[Any], size: int) -> None:
    """Call every function in `work`, `size` at a time; the first error is raised."""
    errors: list[BaseException] = []
    queue = collections.deque(work)

    def worker() -> None:
        while queue and not errors:
            try:
                queue.popleft()()
            except IndexError:
                return
            except (RuntimeError, *NO_ANSWER) as error:
                errors.append(error)

    threads = [threading.Thread(target=worker) for _ in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def rate(plan: dict[str, Any]) -> dict[str, Any]:
    run = Run(plan)
    raters = [Rater(run, r["seat"], r["link"], i) for i, r in enumerate(plan["raters"])]
    in_groups([lambda r=r: r.browser.sign_in(r.link) for r in raters], 4)
    for rater in raters:
        rater.start()
    run.ran_out.wait(plan["warmup"])
    tell("begin")
    own_cpu, begin = time.process_time(), time.perf_counter()
    run.ran_out.wait(plan["seconds"])
    end, own_cpu = time.perf_counter(), time.process_time() - own_cpu
    tell("end")
    run.stop.set()
    for rater in raters:
        rater.join(TIMEOUT_SECONDS * 2)
    write_ledger(run)
    inside = [s for s in run.samples if begin <= s[1] <= end]
    n_saved = sum(kind in ("save", "turn") for kind, *_rest in inside)
    result = {
        "latency_ms": {
            kind: summary([s[2] * 1000 for s in inside if s[0] == kind]) for kind in sorted({s[0] for s in inside})
        },
        "window_seconds": round(end - begin, 2),
        "ran_out_of_work": run.ran_out.is_set(),
        "generator_cpu_share": round(own_cpu / (end - begin), 3),
        "counts": dict(sorted(run.counts.items())),
    }
    if plan["mode"] != "hostile":  # its saves are not timed: resends and refusals are no ratings
        result |= {
            "n_saved": n_saved,
            "ratings_per_second": round(n_saved / (end - begin), 2),
            "kib_per_rating": round(sum(s[3] for s in inside) / 1024 / max(1, n_saved), 2),
        }
    return result


def write_ledger(run: Run) -> None:
    with open(run.plan["ledger"], "w", encoding="utf-8") as file:
        for operation in run.operations:
            file.write(json.dumps(vars(operation)) + "\n")


def summary(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)

    def at(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1)

    return {"p50": at(0.50), "p95": at(0.95), "p99": at(0.99), "n": len(ordered)}


def burst(plan: dict[str, Any]) -> dict[str, Any]:
    """Everybody opens their link, presses the button and follows to where the work is, at the same moment."""
    run = Run(plan)
    gate = threading.Barrier(len(plan["invitations"]) + 1)
    done: list[float] = []
    failures: list[str] = []
    start = [0.0]

    def one(link: str) -> None:
        browser = Browser(run)
        gate.wait()
        try:
            browser.sign_in(link)
            path = "/"
            for _hop in range(5):
                status, _body, headers = browser.ask("GET", path)
                if status != 302:
                    break
                path = headers["Location"]
            if status != 200:
                raise RuntimeError(f"{path} answered {status}")
            done.append(time.perf_counter() - start[0])
        except (RuntimeError, *NO_ANSWER) as error:
            failures.append(f"{type(error).__name__}: {error}"[:200])
        browser.close()

    threads = [threading.Thread(target=one, args=(link,)) for link in plan["invitations"]]
    for thread in threads:
        thread.start()
    tell("begin")
    own_cpu = time.process_time()
    start[0] = time.perf_counter()
    gate.wait()
    for thread in threads:
        thread.join()
    tell("end")
    write_ledger(run)
    return {
        "n_people": len(threads),
        "seconds_to_last": round(max(done, default=float("nan")), 2),
        "seconds_median": round(sorted(done)[len(done) // 2], 2) if done else None,
        "n_failed": len(failures),
        "failures": failures[:3],
        "generator_cpu_share": round((time.process_time() - own_cpu) / max(done, default=1), 3),
        "counts": dict(run.counts),
    }


def main() -> None:
    plan = json.load(sys.stdin)
    threading.stack_size(512 * 1024)
    print(json.dumps(burst(plan) if plan["mode"] == "burst" else rate(plan)), flush=True)


if __name__ == "__main__":
    main()
