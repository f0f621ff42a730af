"""One line a check, a closing count, an honest exit code."""
import os
import sys

CI = bool(os.environ.get("CI"))


class Checks:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0

    def check(self, name, good, detail=""):
        """Records one check; `detail` is shown when it failed."""
        if good:
            self.passed += 1
            print(f"ok - {name}", flush=True)
        else:
            self.failed += 1
            print(f"not ok - {name}", flush=True)
            for line in str(detail).splitlines():
                print(f"#   {line}", flush=True)
        return bool(good)

    def skip(self, name, reason):
        """In CI nothing may be skipped, so there it is a failure."""
        if CI:
            return self.check(name, False, f"cannot run: {reason}")
        self.skipped += 1
        print(f"ok - {name} # SKIP {reason}", flush=True)
        return False

    def close(self):
        print(f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped", flush=True)
        sys.exit(1 if self.failed or not self.passed else 0)
