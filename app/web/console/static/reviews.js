// Judging by keyboard: one press is one verdict, and the next card is at hand before it is asked for.
"use strict";

const ARMED_AFTER_MS = 250; // a card that has just come takes no verdict meant for the one before
const desk = () => $("#desk");
const card = () => $("#desk > article");
let ahead = null; // the next card: its id and its HTML
let replaced = null; // what stood where the next card stands already, while this request is on its way

for (const key of ["1", "2", "3", "e", "j", "k", "s", "f", "u", "n", "w"])
  keys({ [key]: event => event.repeat || $(`.judging [data-key="${key}"]`)?.click() });

document.addEventListener("click", event => {
  if (event.target.closest("#desk [aria-disabled=true]")) { event.preventDefault(); event.stopImmediatePropagation(); }
}, true);

function disarm() {
  const acts = $$(".verdicts button", desk());
  for (const each of acts) each.setAttribute("aria-disabled", "true");
  setTimeout(() => acts.forEach(each => each.removeAttribute("aria-disabled")), ARMED_AFTER_MS);
}

// Have the next card ready; nobody holds it yet.
async function lookAhead() {
  const { review, state } = desk().dataset;
  ahead = null;
  if (state === "empty") return;
  const form = $("#judge").elements;
  const asked = new URLSearchParams({ after: review, rollout: form.rollout.value, kind: form.kind.value, flagged: form.flagged.value });
  const answer = await fetch(`/reviews/next?${asked}`, { headers: { "HX-Request": "true" } }).catch(() => null);
  if (answer?.status !== 200 || desk().dataset.review !== review) return;
  ahead = { id: answer.headers.get("X-Review"), html: await answer.text() };
  if ($("#judge").elements.review.value === review) $("#judge").elements.wanted.value = ahead.id;
}

// Whether an act leads to the next card for certain.
function goesOn(address) {
  const { state, mode } = desk().dataset;
  return address.endsWith("/go-on") || address.endsWith("/skip") || (address.endsWith("/verdict") && state === "open" && mode === "assisted");
}
document.addEventListener("htmx:before:request", event => {
  const { ctx } = event.detail;
  const address = String(ctx.request.action);
  if (!ahead || !ctx.sourceElement.closest("#judge") || !goesOn(address)) return;
  const next = new DOMParser().parseFromString(ahead.html, "text/html").body.firstElementChild;
  replaced = { ctx, card: card() };
  replaced.card.replaceWith(next);
});

document.addEventListener("htmx:finally:request", event => {
  const { ctx } = event.detail;
  if (replaced?.ctx === ctx) {
    if (ctx.status !== "swapped" || ctx.response.status >= 400) card().replaceWith(replaced.card);
    replaced = null;
  }
  if (ctx.target?.id !== "desk" || ctx.status !== "swapped") return;
  $("#flag").close();
  $("#flag form").reset(); // what was typed of one card says nothing of the next
  disarm();
  lookAhead();
  watchClaim();
  const came = ctx.sourceElement.matches(".nothing"); // by itself: whoever has tabbed on keeps their place
  if (!came || document.activeElement === document.body) ($("#go-on") ?? desk()).focus({ preventScroll: true });
  say(desk().getAttribute("aria-label"));
  document.body.dispatchEvent(new CustomEvent("judged"));
});

// The claim is renewed while the card is open; a laptop that slept finds it ended.
function watchClaim() {
  const claim = $("#claim");
  if (!claim?.dataset.until || Date.now() < Date.parse(claim.dataset.until)) return;
  claim.classList.add("ended");
  claim.textContent = "Your claim has ended: a verdict still counts unless somebody else has taken the card.";
}
setInterval(watchClaim, 5000);

// What is opened shows itself above the verdicts.
document.addEventListener("toggle", event => {
  if (event.target.open && event.target.closest("#desk > article")) event.target.scrollIntoView({ block: "nearest" });
}, true);

if (desk().dataset.state === "open") lookAhead();
