"""C loops of F61 and F127, see ``mpc.field``; built where a C compiler is found."""

from numpy import ufunc

f61_add: ufunc
f61_sub: ufunc
f61_mul: ufunc
f61_neg: ufunc
f61_beaver: ufunc
f61_beaver_lead: ufunc
f61_scale: ufunc
f61_from_int64: ufunc
f61_decode_fixed: ufunc
f61_shift_round: ufunc
f61_residue: ufunc
f61_encode_fixed: ufunc
f61_to_int64: ufunc
f61_noncanonical: ufunc
f61_sum: ufunc
f61_dot: ufunc
f61_matmul: ufunc
f61_residues: ufunc
f61_join: ufunc
f127_add: ufunc
f127_sub: ufunc
f127_mul: ufunc
f127_neg: ufunc
f127_beaver: ufunc
f127_beaver_lead: ufunc
f127_scale: ufunc
f127_from_int64: ufunc
f127_decode_fixed: ufunc
f127_shift_round: ufunc
f127_residue: ufunc
f127_encode_fixed: ufunc
f127_to_int64: ufunc
f127_noncanonical: ufunc
f127_low_bits: ufunc
f127_sum: ufunc
f127_dot: ufunc
f127_matmul: ufunc
f127_residues: ufunc
f127_join: ufunc
