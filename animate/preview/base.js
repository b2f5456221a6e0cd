for (const one of document.querySelectorAll("[data-style]")) one.style.cssText = one.dataset.style;
