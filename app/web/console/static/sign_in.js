// The link page sends its form by itself, once; a preview that runs no script uses nothing up.
"use strict";
document.querySelector("[data-sends-itself]").requestSubmit();
