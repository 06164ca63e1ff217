"use strict";
// Plays the clip in a report, and shows any frame on a click. It asks for nothing: all it knows is in the page.
(() => {
  const player = document.getElementById("player");
  if (player) play(player);
  document.querySelectorAll("button[data-copy]").forEach((button) => {
    button.hidden = false;
    button.addEventListener("click", () => copy(button));
  });

  function play(player) {
    const { first, count, frames, fps } = Object.fromEntries(
      ["first", "count", "frames", "fps"].map((name) => [name, Number(player.dataset[name])]),
    );
    const labelled = new Set(numbers(player.dataset.labelled));
    const doubts = numbers(player.dataset.doubts).sort((a, b) => a - b);
    const video = player.querySelector("video");
    const film = [...player.querySelectorAll(".film img")];
    const slider = player.querySelector("input");
    const said = player.querySelector("output");
    const button = player.querySelector("[data-do=play]");
    const lanes = [...document.querySelectorAll(".lane")];
    const cursors = lanes.map((lane) => {
      const cursor = document.createElement("i");
      cursor.className = "cursor";
      lane.append(cursor);
      return cursor;
    });
    let frame = first;
    let timer = 0;
    let moved = false;

    player.querySelector(".controls").hidden = false;
    document.querySelectorAll(".needs-script").forEach((element) => (element.hidden = false));

    function mark(now) {
      frame = Math.min(Math.max(now, first), first + count - 1);
      slider.value = String(frame);
      const text = `frame ${frame}, ${((frame - first) / fps).toFixed(2)} s${labelled.has(frame) ? ", labelled" : ""}`;
      slider.setAttribute("aria-valuetext", text);
      if (said.textContent !== text) said.textContent = text;
      cursors.forEach((cursor) => (cursor.style.left = `${(100 * (frame + 0.5)) / frames}%`));
      film.forEach((image, n) => (image.hidden = n !== frame - first));
      // Commands that open the shown frame; until somebody has moved they name the one to look at first.
      if (moved) document.querySelectorAll(".now").forEach((word) => (word.textContent = String(frame)));
      moved = true;
    }

    function show(wanted) {
      stop();
      mark(wanted);
      // The middle of a frame's time, so that rounding never shows the one beside it.
      if (video) video.currentTime = (frame - first + 0.5) / fps;
    }

    function stop() {
      if (video) video.pause();
      clearInterval(timer);
      timer = 0;
      button.textContent = "Play";
    }

    function start() {
      button.textContent = "Stop";
      if (video) return void video.play().catch(stop);
      if (frame === first + count - 1) mark(first);
      timer = setInterval(() => (frame === first + count - 1 ? stop() : mark(frame + 1)), 1000 / fps);
    }

    const toggle = () => (timer || (video && !video.paused) ? stop() : start());
    const follow = () => {
      mark(first + Math.floor(video.currentTime * fps + 1e-3));
      if (!video.paused && !video.ended) requestAnimationFrame(follow);
    };
    if (video) {
      video.controls = false; // those below do not hide the picture
      video.addEventListener("play", follow);
      video.addEventListener("pause", follow); // the video may have moved since the last picture was announced
      video.addEventListener("seeked", follow);
      video.addEventListener("ended", stop);
      video.addEventListener("click", toggle);
      video.addEventListener("error", () => player.classList.add("lacks-video"));
      if (video.error) player.classList.add("lacks-video");
    }
    slider.addEventListener("input", () => show(Number(slider.value)));
    const actions = {
      play: toggle,
      back: () => show(frame - 1),
      on: () => show(frame + 1),
      "back-doubt": () => show([...doubts].reverse().find((each) => each < frame) ?? frame),
      "on-doubt": () => show(doubts.find((each) => each > frame) ?? frame),
    };
    player.querySelectorAll("button[data-do]").forEach((each) => {
      each.addEventListener("click", actions[each.dataset.do]);
    });
    lanes.forEach((lane) => {
      lane.addEventListener("click", (event) => {
        if (event.target.closest("a")) return;
        const box = lane.getBoundingClientRect();
        show(Math.floor(((event.clientX - box.left) / box.width) * frames));
      });
    });
    document.querySelectorAll("button[data-frame]").forEach((each) => {
      each.addEventListener("click", () => {
        show(Number(each.dataset.frame));
        player.scrollIntoView({ block: "start" });
        slider.focus({ preventScroll: true });
      });
    });
    mark(first);
  }

  function numbers(text) {
    return text ? text.split(" ").map(Number) : [];
  }

  async function copy(button) {
    const code = button.parentElement.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      // Without leave to use the clipboard the command is selected, ready to be copied.
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = "Copy"), 2000);
  }
})();
