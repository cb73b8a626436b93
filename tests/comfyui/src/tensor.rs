//! How PyTorch shows a picture in an error report.

use crate::{picture::Picture, py::Value, run::Thing};

/// Dimensions longer than this are cut to their first and last [`EDGE`] items, once there are more than [`FULL`].
const EDGE: usize = 3;
const FULL: usize = 1_000;

/// An input's value as an error report shows it.
pub(crate) fn shown(thing: &Thing) -> Value {
    match thing {
        Thing::Value(value @ (Value::List(_) | Value::Dict(_))) => Value::Str(crate::py::repr(value)),
        Thing::Value(value) => value.clone(),
        Thing::Images(pictures) => Value::Str(images(pictures)),
        other => Value::Str(format!("<{}>", other.name())),
    }
}

fn images(pictures: &[Picture]) -> String {
    let Some(first) = pictures.first() else { return "tensor([])".into() };
    let channels = if first.alpha { 4 } else { 3 };
    let shape = [pictures.len(), first.height as usize, first.width as usize, channels];
    let cut = shape.iter().product::<usize>() > FULL;
    let at = |index: &[usize]| {
        let place = (index[1] * shape[2] + index[2]) * channels + index[3];
        pictures[index[0]].pixels.get(place).map_or(0.0, |part| f64::from(*part) / 255.0)
    };
    // Whole numbers are shown without decimals, but only when all that is shown are.
    let mut whole = true;
    walk(&shape, cut, &mut Vec::new(), &mut |index| whole &= at(index).fract() == 0.0);
    let mut out = String::from("tensor(");
    write(&mut out, &shape, cut, &mut Vec::new(), 7, &|index| {
        if whole { format!("{:.0}.", at(index)) } else { format!("{:.4}", at(index)) }
    });
    out.push(')');
    out
}

fn places(length: usize, cut: bool) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
    if cut && length > 2 * EDGE { (0..EDGE, length - EDGE..length) } else { (0..length, length..length) }
}

fn walk(shape: &[usize], cut: bool, index: &mut Vec<usize>, visit: &mut dyn FnMut(&[usize])) {
    let Some((length, rest)) = shape.split_first() else { return visit(index) };
    let (head, tail) = places(*length, cut);
    for at in head.chain(tail) {
        index.push(at);
        walk(rest, cut, index, visit);
        index.pop();
    }
}

fn write(
    out: &mut String,
    shape: &[usize],
    cut: bool,
    index: &mut Vec<usize>,
    indent: usize,
    show: &dyn Fn(&[usize]) -> String,
) {
    let Some((length, rest)) = shape.split_first() else {
        out.push_str(&show(index));
        return;
    };
    let between = if rest.is_empty() {
        ", ".to_owned()
    } else {
        format!(",{}{}", "\n".repeat(rest.len()), " ".repeat(indent + 1))
    };
    let (head, tail) = places(*length, cut);
    let gap = !tail.is_empty();
    out.push('[');
    for (place, at) in head.chain(tail).enumerate() {
        if place > 0 {
            out.push_str(&between);
        }
        if gap && place == EDGE {
            out.push_str("...");
            out.push_str(&between);
        }
        index.push(at);
        write(out, rest, cut, index, indent + 1, show);
        index.pop();
    }
    out.push(']');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_tensors_are_shown_in_full() {
        let pictures = [Picture::flat(2, 1, [255, 0, 255])];
        assert_eq!(images(&pictures), "tensor([[[[1., 0., 1.],\n          [1., 0., 1.]]]])");
    }

    #[test]
    fn large_ones_are_cut() {
        let shown = images(&[Picture::flat(64, 64, [0x6c, 0x4d, 0x38])]);
        assert!(shown.starts_with("tensor([[[[0.4235, 0.3020, 0.2196],\n          [0.4235, 0.3020, 0.2196],\n"));
        assert_eq!(shown.matches("...").count(), 7);
    }
}
