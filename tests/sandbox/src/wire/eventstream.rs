//! Frames of `application/vnd.amazon.eventstream` (Smithy specification: Amazon Event Stream Specification).

/// One event with headers that are all strings.
pub fn event(kind: &str, content_type: &str, payload: &[u8]) -> Vec<u8> {
    frame(&[(":event-type", kind), (":content-type", content_type), (":message-type", "event")], payload)
}

/// An exception in the place of an event.
pub fn exception(kind: &str, payload: &[u8]) -> Vec<u8> {
    let headers = [(":exception-type", kind), (":content-type", "application/json"), (":message-type", "exception")];
    frame(&headers, payload)
}

fn frame(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
    let mut head = Vec::new();
    for (name, value) in headers {
        // Names and values here are short constants.
        head.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        head.extend_from_slice(name.as_bytes());
        // 7 is the type of a string.
        head.push(7);
        head.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
        head.extend_from_slice(value.as_bytes());
    }
    let length = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_be_bytes();
    let mut out = Vec::with_capacity(head.len() + payload.len() + 16);
    // Two lengths, their checksum, headers, payload, the checksum of everything.
    out.extend_from_slice(&length(head.len() + payload.len() + 16));
    out.extend_from_slice(&length(head.len()));
    out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
    out.extend_from_slice(&head);
    out.extend_from_slice(payload);
    let sum = crc32fast::hash(&out);
    out.extend_from_slice(&sum.to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_frame_has_its_lengths_and_sums() {
        let frame = super::event("PayloadChunk", "application/octet-stream", b"hello");
        assert_eq!(u32::from_be_bytes(frame[..4].try_into().unwrap()) as usize, frame.len());
        assert_eq!(frame[8..12], crc32fast::hash(&frame[..8]).to_be_bytes());
        let (rest, sum) = frame.split_at(frame.len() - 4);
        assert_eq!(sum, crc32fast::hash(rest).to_be_bytes());
        assert!(rest.ends_with(b"hello"));
        let headers = u32::from_be_bytes(frame[4..8].try_into().unwrap()) as usize;
        assert_eq!(rest.len(), 12 + headers + 5);
        assert_eq!(&frame[12..24], b"\x0b:event-type");
    }
}
