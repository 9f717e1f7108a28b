// A form is sent once: a second click while the answer is on its way would send it again, and may break off the answer.

const LOCKED_MS = 10_000; // whoever stopped a page that hangs may try again after this

const sentAt = new WeakMap(); // form ► when it was sent

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (event.defaultPrevented || form.getAttribute("method")?.toLowerCase() !== "post") return;
  const now = performance.now();
  if (now - (sentAt.get(form) ?? -LOCKED_MS) < LOCKED_MS) {
    event.preventDefault();
    return;
  }
  sentAt.set(form, now);
  form.setAttribute("aria-busy", "true");
});

// The back button may bring a page as it was left.
window.addEventListener("pageshow", (event) => {
  if (!event.persisted) return;
  for (const form of document.forms) {
    sentAt.delete(form);
    form.removeAttribute("aria-busy");
  }
});
