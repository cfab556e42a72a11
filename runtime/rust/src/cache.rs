//! The key/value cache of rows that begin alike, in the two forms that the decode graphs take.

use std::{fmt::Debug, hint::black_box};

use ort::value::{PrimitiveTensorElementType as Element, Tensor};
use ort::{memory::Allocator, session::IoBinding};

use crate::{Error, Info, Result};

const SHARED_CHANNELS: usize = 8; // that a slot of decode_shared has besides those of a head

/// Keys and values of each layer in turn.
pub(crate) type Layers<K> = Vec<Tensor<K>>;

/// What a slot is made of.
pub(crate) trait Slot: Element + Debug + Copy + Into<f32> + 'static {}
impl<K: Element + Debug + Copy + Into<f32> + 'static> Slot for K {}

pub(crate) fn names(kind: &str, info: &Info) -> impl Iterator<Item = String> {
    (0..info.n_layer).flat_map(move |layer| ["key", "value"].map(|part| format!("{kind}.{layer}.{part}")))
}

/// Slots `[rows, n_head, slots, channels]` of zeros, as attention may multiply empty ones by zero. What does not fit
/// into memory is refused before a part of it is taken.
pub(crate) fn empty<K: Slot>(info: &Info, rows: usize, slots: usize, channels: usize) -> Result<Layers<K>> {
    let shape = [rows, info.n_head, slots, channels];
    let bytes = shape.iter().map(|size| *size as f64).product::<f64>() * (2 * info.n_layer * size_of::<K>()) as f64;
    let words = format!("{rows} samples need {:.1} GB of cache, more than there is; draw fewer at once", bytes / 1e9);
    let mut probe = Vec::<u8>::new();
    black_box(&mut probe).try_reserve_exact(bytes as usize).map_err(|_| Error::Memory(words))?; // not to be left out
    drop(probe);
    let tensors = (0..2 * info.n_layer).map(|_| Tensor::new(&Allocator::default(), shape)); // of zeros
    Ok(tensors.collect::<ort::Result<_>>()?)
}

/// Slots of decode for `rows` rows that begin with those of one row, `[1, n_head, length, head_dim]`, or with none.
pub(crate) fn repeated<K: Slot>(info: &Info, rows: usize, one: &Layers<K>, length: usize) -> Result<Layers<K>> {
    let mut many = empty(info, rows, info.n_positions, info.head_dim)?;
    let (head, given) = (info.n_positions * info.head_dim, length * info.head_dim);
    for (from, to) in one.iter().zip(&mut many) {
        let heads = from.extract_tensor().1.chunks_exact(given).cycle();
        let slots = to.extract_tensor_mut().1.chunks_exact_mut(head);
        slots.zip(heads).for_each(|(to, from)| to[..given].copy_from_slice(from));
    }
    Ok(many)
}

/// Binds those of one row as a prefix: keys `[1, n_head, length, head_dim]`, values transposed.
pub(crate) fn bind_prefix<K: Slot>(to: &mut IoBinding, info: &Info, one: &Layers<K>, length: usize) -> Result<()> {
    let channels = info.head_dim;
    for (i, (name, from)) in names("prefix", info).zip(one).enumerate() {
        let is_value = i % 2 == 1;
        let from = from.extract_tensor().1.chunks_exact(length * channels);
        let place = |j| if is_value { j % length * channels + j / length } else { j };
        let part: Vec<f32> = from.flat_map(|head| (0..head.len()).map(move |j| head[place(j)].into())).collect();
        let [rows, columns] = if is_value { [channels, length] } else { [length, channels] };
        to.bind_input(name, &Tensor::from_array(([1, info.n_head, rows, columns], part))?)?;
    }
    Ok(())
}

/// Slots of decode_shared for the tokens after a prefix of that length: empty but for the sentinel.
pub(crate) fn own<K: Slot>(info: &Info, rows: usize, length: usize, one: K) -> Result<Layers<K>> {
    let (slots, channels) = (info.n_positions - length + 1, info.head_dim + SHARED_CHANNELS);
    let mut own = empty(info, rows, slots, channels)?;
    for part in &mut own {
        let marks = part.extract_tensor_mut().1.iter_mut().skip(info.head_dim).step_by(slots * channels);
        marks.for_each(|mark| *mark = one);
    }
    Ok(own)
}

/// Binds slots as past and as present, so that ONNX Runtime writes into them and copies nothing.
pub(crate) fn bind<K: Slot>(binding: &mut IoBinding, info: &Info, slots: Layers<K>) -> ort::Result<()> {
    for ((past, present), slots) in names("past_key_values", info).zip(names("present", info)).zip(slots) {
        binding.bind_input(past, &slots)?;
        binding.bind_output(present, slots)?;
    }
    Ok(())
}
