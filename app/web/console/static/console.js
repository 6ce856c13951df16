// What every page does beyond its HTML: dialogs, keys, news from the server, theme, relative times, alerts.
"use strict";

const $ = (selector, within = document) => within.querySelector(selector);
const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];

// Dialogs. `data-opens` names one, `data-closes` closes the one around it.
function open(dialog) {
  if (dialog.open) return;
  $("[data-problem]", dialog)?.replaceChildren();
  dialog.showModal();
  const field = $("[autofocus], textarea, input:not([type=hidden]), select", dialog);
  field?.focus();
  field?.select?.(); // a suggested text is there to be typed over
}
document.addEventListener("click", event => {
  const opener = event.target.closest("[data-opens]");
  if (opener) return open(document.getElementById(opener.dataset.opens));
  if (event.target.closest("[data-closes]")) return event.target.closest("dialog").close();
  if (event.target.closest("[data-theme-switch]")) return switchTheme();
  if (event.target.closest("#notice")) $("#notice").replaceChildren();
});

// Whatever goes wrong is said where the form was, else in the corner; nothing of the page is replaced by it.
document.addEventListener("htmx:before:response", event => {
  const { ctx } = event.detail;
  if (ctx.hx.redirect) ctx.sourceElement.closest("dialog")?.close(); // a second click would do it once more
  if (ctx.response.status < 400) return;
  const form = ctx.sourceElement.closest("[data-form]");
  ctx.hx = { ...ctx.hx, retarget: form ? $("[data-problem]", form) : $("#notice"), reswap: "innerHTML" };
});
document.addEventListener("htmx:error", () => flash("The server does not answer. Nothing was changed."));
function flash(text) {
  const said = Object.assign(document.createElement("p"), { className: "flash", textContent: text });
  $("#notice").replaceChildren(said);
}
// Said to those who listen rather than look.
function say(text) { $("#said").textContent = text; }

// Keys: single letters, off while somebody types, holds a modifier or has a dialog open. After `g` a key names a page
// and nothing else.
const LEAD_MS = 1000;
let led = -LEAD_MS;
function idle(handler) {
  return event => {
    if (event.ctrlKey || event.metaKey || event.altKey || $("dialog[open]")) return;
    if (event.target.closest("input, select, textarea, [contenteditable]")) return;
    event.preventDefault();
    handler(event);
  };
}
function keys(bindings) {
  const alone = handler => event => { if (event.timeStamp - led >= LEAD_MS) handler(event); };
  const bound = ([key, handler]) => [key, idle(key.startsWith("g ") ? handler : alone(handler))];
  tinykeys.tinykeys(window, Object.fromEntries(Object.entries(bindings).map(bound)));
}
keys({
  g: event => { led = event.timeStamp; },
  "/": () => $("[data-filter]")?.focus(),
  ...Object.fromEntries($$(".top nav a").map((link, index) => [`g ${index + 1}`, () => link.click()])),
});

// By the character: whether it takes Shift is the keyboard's affair.
const help = idle(() => open($("#help")));
window.addEventListener("keydown", event => { if (event.key === "?") help(event); });

// News: one stream a page. An event `rollout` about `read` becomes `live:rollout` and `live:rollout:read` on the body;
// what listens by `hx-trigger="live:rollout:read from:body"` asks for its own part again and is morphed in place.
// Silence of three ticks, or an error of 3 s, and a bar says how old the page is until the line is there again.
const ERROR_MS = 3000, QUIET_MS = 15000, AGAIN_MS = 5000;
let feed, doubt, failing = false, heard = new Date();
function hear() {
  [failing, heard] = [false, new Date()];
  $("#lost").replaceChildren();
  lose(QUIET_MS);
}
function lose(inMs) {
  clearTimeout(doubt);
  doubt = setTimeout(() => {
    const remedy = feed.readyState === EventSource.CLOSED ? "reload the page" : "it comes back by itself";
    const textContent = `Connection lost: what you see is from ${heard.toISOString().slice(11, 19)} UTC; ${remedy}.`;
    $("#lost").replaceChildren(Object.assign(document.createElement("p"), { className: "alarm", textContent }));
  }, inMs);
}
function listen() {
  feed = new EventSource(document.body.dataset.live);
  const tell = name => document.body.dispatchEvent(new CustomEvent(name));
  for (const kind of ["rollout", "review", "plane", "tick"])
    feed.addEventListener(kind, event => {
      hear();
      const about = JSON.parse(event.data);
      tell(`live:${kind}`);
      if (about.name) tell(`live:${kind}:${about.name}`);
      if (about.alarm) flash(about.sentence);
      else if (about.sentence) say(about.sentence);
    });
  feed.addEventListener("open", () => { hear(); tell("live:tick"); }); // what came while the line was down
  feed.addEventListener("error", () => {
    if (!failing) lose(ERROR_MS);
    failing = true;
    if (feed.readyState === EventSource.CLOSED) setTimeout(listen, AGAIN_MS); // refused, which a browser takes for good
  });
}
if (document.body.dataset.live) {
  listen();
  window.addEventListener("pagehide", () => { clearTimeout(doubt); feed.close(); });
}

function switchTheme() {
  const next = { auto: "light", light: "dark", dark: "auto" }[document.documentElement.dataset.theme];
  document.documentElement.dataset.theme = next;
  document.cookie = `theme=${next}; path=/; max-age=31536000; samesite=lax`;
  $("[data-theme-switch]").setAttribute("aria-label", `Theme: ${next}`);
  document.dispatchEvent(new CustomEvent("theme"));
}

// "3 min ago" beside the exact time, which stays in the title.
function age(seconds) {
  const [unit, size] = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]].find(([, size]) => Math.abs(seconds) >= size) ?? ["second", 1];
  return new Intl.RelativeTimeFormat("en", { numeric: "auto" }).format(-Math.round(seconds / size), unit);
}
function relate() {
  for (const time of $$("time[data-relative]")) {
    time.title ||= `${time.textContent} UTC`;
    time.textContent = age((Date.now() - Date.parse(time.dateTime)) / 1000);
  }
}
relate();
setInterval(relate, 15000);
document.addEventListener("htmx:after:swap", relate);
