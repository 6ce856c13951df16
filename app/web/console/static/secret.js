// What is shown once: copied at a press, and gone with its dialog.
"use strict";

document.addEventListener("click", async event => {
  const button = event.target.closest("[data-copies]");
  if (!button) return;
  const shown = button.closest("[data-secret]").querySelector("[data-copied]");
  try {
    await navigator.clipboard.writeText(shown.textContent);
    button.textContent = "Copied";
  } catch { // no permission, or no safe connection: marked, so that one key copies it
    getSelection().selectAllChildren(shown);
    button.textContent = "Marked: press Ctrl+C";
  }
});
document.addEventListener("close", event => {
  if (event.target.querySelector("[data-secret]")) location.reload();
}, true);
