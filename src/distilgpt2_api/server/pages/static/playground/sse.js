// Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html): `EventSource` can't POST.

/** The data of each event, as it arrives. Skips comments and other fields. */
export async function* eventsOf(bytes) {
  let data = [];
  for await (const line of linesOf(bytes)) {
    if (line === "") {
      if (data.length) yield data.join("\n");
      data = [];
    } else if (line.startsWith("data:")) {
      data.push(line.slice(line[5] === " " ? 6 : 5));
    }
  }
}

async function* linesOf(bytes) {
  const reader = bytes.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return; // An event without a blank line after it is incomplete.
      const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
      rest = lines.pop();
      for (const line of lines) yield line.endsWith("\r") ? line.slice(0, -1) : line;
    }
  } finally {
    await reader.cancel().catch(() => {}); // The stream may have failed already.
  }
}
