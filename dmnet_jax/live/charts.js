// Draws a curve of the last frames on a canvas.
"use strict";
const HISTORY = 300;

function token(name) {  // a color of the theme, in the form that a canvas needs
  const probe = token.probe ??= document.body.appendChild(document.createElement("i"));
  probe.style.color = `var(${name})`;
  probe.hidden = true;
  return getComputedStyle(probe).color;
}

// Returns [lowest, highest] value shown, or null if there is nothing to show.
// `threshold` is a dashed line, `marks` are dots on the curve, `shaded` marks frames in
// the background, `from` is the lowest value of the axis.
function curve(canvas, values, {threshold = null, marks = null, shaded = [], from = null} = {}) {
  const scale = devicePixelRatio || 1;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  if (!width) return null;
  canvas.width = width * scale;
  canvas.height = height * scale;
  const to = canvas.getContext("2d");
  to.scale(scale, scale);
  to.clearRect(0, 0, width, height);
  const known = values.filter((value) => value !== null);
  if (!known.length) return null;
  const all = threshold === null ? known : [...known, threshold];
  let low = Math.min(...all), high = Math.max(...all);
  if (from !== null) low = Math.min(low, from);
  const air = (high - low || Math.abs(high) || 1) * 0.08;
  if (from === null) low -= air;
  high += air;
  const left = 44;
  const x = (i) => left + (width - left - 6) * (i + HISTORY - values.length) / (HISTORY - 1);
  const y = (value) => 6 + (height - 12) * (high - value) / (high - low);

  const digits = high - low > 20 ? 0 : high - low > 2 ? 1 : high - low > 0.2 ? 2 : 3;
  to.font = "11px system-ui, sans-serif";
  to.textBaseline = "middle";
  to.textAlign = "right";
  to.fillStyle = token("--soft");
  to.strokeStyle = token("--line");
  to.lineWidth = 1;
  for (const part of [0.08, 0.5, 0.92]) {
    const value = low + (high - low) * part;
    to.fillText(value.toFixed(digits), left - 6, y(value));
    to.beginPath(); to.moveTo(left, y(value)); to.lineTo(width, y(value)); to.stroke();
  }

  to.fillStyle = token("--warm");
  to.globalAlpha = 0.16;
  shaded.forEach((on, i) => on && to.fillRect(x(i - 0.5), 6, x(1) - x(0), height - 12));
  to.globalAlpha = 1;

  to.strokeStyle = token("--accent");
  to.lineWidth = 1.6;
  to.beginPath();
  let down = false;
  values.forEach((value, i) => {
    if (value === null) { down = false; return; }
    down ? to.lineTo(x(i), y(value)) : to.moveTo(x(i), y(value));
    down = true;
  });
  to.stroke();

  if (threshold !== null) {
    to.strokeStyle = token("--warm");
    to.setLineDash([5, 4]);
    to.lineWidth = 1.4;
    to.beginPath(); to.moveTo(left, y(threshold)); to.lineTo(width, y(threshold)); to.stroke();
    to.setLineDash([]);
  }
  to.fillStyle = token("--warm");
  marks?.forEach((mark, i) => {
    if (!mark || values[i] === null) return;
    to.beginPath(); to.arc(x(i), y(values[i]), 3.2, 0, 7); to.fill();
  });
  return [low, high];
}
