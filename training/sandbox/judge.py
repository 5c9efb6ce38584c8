"""Run one program, then its test on it, and say that the test was run to its end: this is inside the sandbox.

It is no module of ours there: its text is what the sandboxed interpreter is started with. Descriptor 3 holds
program, test and entry point, 4 the nonce, 5 takes the verdict. The nonce is read only when the test is
through, so it is in no variable while the program's code can run.
"""

import builtins
import marshal
import os
import sys
import types

PAYLOAD, NONCE, SAID = 3, 4, 5
NAME = "solution"


def judge():
    """Everything is taken hold of before the program runs, for it may replace what it finds."""
    with open(PAYLOAD, "rb") as payload:
        program, test, entry_point = marshal.loads(payload.read())
    run, read, write, leave, me, pid = exec, os.read, os.write, os._exit, os.getpid(), os.getpid
    show, settrace, setprofile, kind = sys.__excepthook__, sys.settrace, sys.setprofile, type
    out, err, python, own = sys.stdout, sys.stderr, vars(builtins), dict(vars(builtins))
    module = types.ModuleType(NAME)
    sys.modules[NAME] = module
    verdict, error = b"", None
    try:
        names, compiled_test = vars(module), compile(test, "<test>", "exec", dont_inherit=True)
        run(compile(program, "<program>", "exec", dont_inherit=True), names)
        settrace(None)
        setprofile(None)
        python.update(own)
        # the test sees the program's names, but Python's own where the program gave those another meaning
        seen = {name: value for name, value in names.items() if name not in own or name == entry_point}
        seen |= {"__name__": NAME, "__builtins__": builtins}
        seen.pop("check", None)  # the test brings its own
        run(compiled_test, seen)
        if entry_point:
            seen["check"](names[entry_point])
    except MemoryError:
        verdict = b"memory"
    except SystemExit:
        verdict = b"exited"
    except BaseException as raised:
        verdict, error = b"failed", raised
    if pid() != me:
        leave(0)  # a child that the program forked is not who is judged
    if verdict:
        write(SAID, verdict)  # first, for the exception's text may be the program's code again
    if error is not None:
        show(kind(error), error, error.__traceback__)
    for stream in (out, err):
        try:
            stream.flush()
        except Exception:
            continue  # the program closed it
    if not verdict:
        write(SAID, read(NONCE, 64))
    leave(0)


if __name__ == "__main__":
    judge()
