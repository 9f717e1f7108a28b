// How long a rater really worked: visible, focused and with input less than `idleAfter` ms ago.
// A monotonic clock counts; whoever saves takes what has gathered since the last save.

const INPUTS = ["keydown", "pointerdown", "pointermove", "wheel", "touchstart", "scroll"];

export class Clock {
  constructor({ idleAfter, now = () => performance.now() }) {
    this.idleAfter = idleAfter;
    this.now = now;
    this.last = now();
    this.lastInput = this.last;
    this.isIdle = false;
    this.spent = { active: 0, hidden: 0, idle: 0 };
    this.sinceBreak = 0;
  }

  start() {
    for (const name of INPUTS) {
      window.addEventListener(name, () => this.input(), { passive: true, capture: true });
    }
    for (const name of ["focus", "blur"]) window.addEventListener(name, () => this.tick());
    document.addEventListener("visibilitychange", () => this.tick());
    setInterval(() => this.tick(), 1000);
  }

  input() {
    this.tick();
    this.lastInput = this.now();
    this.isIdle = false;
  }

  tick() {
    const now = this.now();
    const passed = now - this.last;
    this.last = now;
    if (document.visibilityState !== "visible" || !document.hasFocus()) {
      this.spent.hidden += passed;
    } else if (now - this.lastInput < this.idleAfter) {
      this.spent.active += passed;
      this.sinceBreak += passed;
    } else {
      if (!this.isIdle) {
        // The tail that was counted as active while nobody moved was idle after all.
        const tail = Math.min(this.spent.active, this.idleAfter);
        this.spent.active -= tail;
        this.spent.idle += tail;
        this.isIdle = true;
      }
      this.spent.idle += passed;
    }
  }

  // Whole milliseconds since the last call; fractions stay for the next one.
  take() {
    this.tick();
    const taken = {};
    for (const kind of ["active", "hidden", "idle"]) {
      taken[`${kind}_ms`] = Math.floor(this.spent[kind]);
      this.spent[kind] -= taken[`${kind}_ms`];
    }
    return taken;
  }
}
