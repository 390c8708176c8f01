/* Cuts the link between this browser and its answers. */
element.querySelector(".erase").addEventListener("click", async () => {
  if (!window.confirm("Forget me? This cannot be taken back.")) return;
  const reply = await fetch("/api/v1/erase", { method: "POST", headers: { "Content-Type": "application/json" }, body: "{}" });
  if (!reply.ok) return;
  for (const name of Object.keys(localStorage)) if (name.startsWith("rlhf-video.")) localStorage.removeItem(name);
  window.location.assign("/");
});
