"""One model at a time, many questions: they wait in a bounded queue and are answered in whole batches.

    ask() -> queue -> the one thread that answers -> log -> the asker's future

A batch is answered by the model that stood here when it began; swap() waits for its end, so no question is
dropped and none is answered by half of each.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from training.serving import exchange
from training.serving.requests import Limits, Question, Refused
from training.serving.served import Answer, Served
from training.serving.traffic import TrafficLog

log = logging.getLogger("stemma.serve")

_Waiting = tuple[Question, "Future[dict[str, Any]]"]


class Desk:
    """Answers questions with whatever model it was given last."""

    def __init__(self, traffic: TrafficLog, limits: Limits) -> None:
        """An empty desk: it refuses every question with 503 until a model is put there."""
        self.unlogged = 0
        """Exchanges that could not be logged, on a full disk for one."""
        self._traffic = traffic
        self._batch_size = limits.batch_size
        self._served: Served | None = None
        self._why_none = "no model has been loaded yet"
        self._at_work = threading.Lock()
        self._queue: queue.Queue[_Waiting | None] = queue.Queue(limits.max_waiting)
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="desk", daemon=True)
        self._thread.start()

    @property
    def served(self) -> Served | None:
        """Who answers now."""
        return self._served

    @property
    def why_none(self) -> str:
        """Why nobody answers, where that is so."""
        return self._why_none

    def swap(self, served: Served | None, *, why_none: str = "") -> None:
        """Put another model here, or none, once the batch at work is done; the one before is closed."""
        with self._at_work:
            before, self._served, self._why_none = self._served, served, why_none
        if before is not None:
            before.close()

    def ask(self, question: Question) -> Future[dict[str, Any]]:
        """A chat.completion to come; its errors are Refused, or what a model failed at. Raises Refused."""
        if self._is_closed or self._served is None:
            why = "it is shutting down" if self._is_closed else self._why_none
            raise Refused(f"nobody answers: {why}", status=503, code="no_model")
        future: Future[dict[str, Any]] = Future()
        try:
            self._queue.put_nowait((question, future))
        except queue.Full as error:
            waiting = self._queue.maxsize
            raise Refused(
                f"{waiting} questions wait already; come again", status=429, code="overloaded"
            ) from error
        return future

    def close(self) -> None:
        """Answer what waits, then stop; questions from now on are refused."""
        if self._is_closed:
            return
        self._is_closed = True
        self._queue.put(None)
        self._thread.join()
        self.swap(None, why_none="it is shutting down")

    def _work(self) -> None:
        while (first := self._queue.get()) is not None:
            batch = [first]
            is_last = False
            while len(batch) < self._batch_size and not is_last:
                try:
                    more = self._queue.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    is_last = True
                else:
                    batch.append(more)
            with self._at_work:
                self._answer(batch)
            if is_last:
                break
        while not self._queue.empty():  # who came in while it closed
            late = self._queue.get_nowait()
            if late is not None:
                with self._at_work:
                    self._answer([late])

    def _answer(self, batch: Sequence[_Waiting]) -> None:
        """Answer those who still wait; from now on none of them can be called off."""
        mine = [waiting for waiting in batch if waiting[1].set_running_or_notify_cancel()]
        try:
            self._answer_all(mine)
        except Exception as error:  # ours: those who wait are told, and the next batch is answered
            log.exception("a batch of %d was not answered", len(mine))
            for _, future in mine:
                if not future.done():
                    future.set_exception(error)

    def _answer_all(self, batch: Sequence[_Waiting]) -> None:
        served = self._served
        if served is None:
            for _, future in batch:
                future.set_exception(
                    Refused(f"nobody answers: {self._why_none}", status=503, code="no_model")
                )
            return
        questions = [question for question, _ in batch]
        if not questions:
            return
        came = _each(served, questions)
        lines, ends = [], []
        for question, answer in zip(questions, came, strict=True):
            if isinstance(answer, Answer):
                body = exchange.response(question, answer, served.version)
                lines.append(exchange.line(question, body))
                ends.append(body)
                continue
            if not isinstance(answer, Refused):
                log.error("%s failed at %s", served.version, question.id, exc_info=answer)
                lines.append(exchange.failed_line(question, served.version))
            ends.append(answer)
        try:
            self._traffic.append(lines)  # before anybody sees an answer
        except OSError as error:
            self.unlogged += len(lines)
            log.error("%d exchanges could not be logged: %s", len(lines), error)
        for (_, future), end in zip(batch, ends, strict=True):
            if isinstance(end, BaseException):
                future.set_exception(end)
            else:
                future.set_result(end)


def _each(served: Served, questions: Sequence[Question]) -> list[Answer | Exception]:
    """An answer to each, or what went wrong with it alone."""
    try:
        return list(served.answer(questions))
    except Exception as error:  # a thread that ended would leave everybody waiting
        if len(questions) == 1:
            return [error]
        return [_each(served, [question])[0] for question in questions]
