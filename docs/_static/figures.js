// Draw each Plotly figure when it comes into view, and release it when it is far away: browsers hold 16 WebGL contexts.
window.addEventListener("load", () => {
  const draw = (entries) => entries.forEach(({ target, isIntersecting }) => {
    const figure = JSON.parse(target.querySelector("script").textContent);
    if (isIntersecting && !target.drawn) {
      const box = target.appendChild(document.createElement("div"));
      const scale = Math.max(0.6, Math.min(1, target.clientWidth / (figure.layout.width || 1)));  // wider ones scroll
      const size = { width: scale * figure.layout.width, height: scale * (figure.layout.height || 450) };
      Plotly.newPlot(box, figure.data, figure.layout.width ? { ...figure.layout, ...size } : figure.layout);
      target.drawn = box;
    } else if (!isIntersecting && target.drawn) {
      Plotly.purge(target.drawn);
      target.drawn.remove();
      target.drawn = null;
    }
  });
  const observer = new IntersectionObserver(draw, { rootMargin: "800px" });
  document.querySelectorAll(".plotly-figure").forEach((figure) => observer.observe(figure));
});
