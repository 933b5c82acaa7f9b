"""Oblivious transfer: products of what one party knows with what another knows; neither learns the other's factor.

Who offers has two values, who chooses gets one of them, and neither learns more. Everything here serves two parties at
a time; :mod:`mpc.preprocessing.ot` makes products of masks of it, for any number of parties. From the bottom up:

- :mod:`~mpc.ot.link` carries messages of two parties, :mod:`~mpc.ot.base` makes 128 transfers of random keys by
  public-key operations;
- :mod:`~mpc.ot.extension` makes as many of these as are wanted, by trees (:mod:`~mpc.ot.trees`) whose leaves are
  streams; :mod:`~mpc.ot.meeting` makes both when parties join, for each pair and in both directions;
- :mod:`~mpc.ot.hashing` turns keys into pads, :mod:`~mpc.ot.pads` says what pads are corrected to (numbers times
  elements, bits and bits), :mod:`~mpc.ot.ends` keeps the stock, and :mod:`~mpc.ot.pairs` talks: ``choose`` at one end,
  ``offer`` or ``pads`` at the other, give summands of a product;
- :mod:`~mpc.ot.networks` and :mod:`~mpc.ot.switching` carry a shared array through permutations that single parties
  know;
- :mod:`~mpc.ot.lattice`, over :mod:`~mpc.ot.rings`, encrypts what is to be multiplied by what another party knows, for
  products of matrices (:mod:`~mpc.ot.matrices`, :mod:`~mpc.ot.matmul`) and of thousands of entries
  (:mod:`~mpc.ot.entries`, in :mod:`~mpc.ot.slots`); :mod:`~mpc.ot.seats` keeps the keys;
- :mod:`~mpc.ot.plans` chooses what costs least: transfers, in parts, or encryption;
- where parties may be dishonest, :mod:`~mpc.ot.checking` finds an inconsistent extension;
  :mod:`~mpc.ot.correlated` multiplies elements by a key that stays, :mod:`~mpc.ot.macs` makes MACs of that and
  :mod:`~mpc.ot.bit_proofs` proves that what has MACs are bits; :mod:`~mpc.ot.authenticated_products` multiplies masks.

Loops are in C (:mod:`mpc._transfers`, :mod:`mpc._lattice`, some in :mod:`mpc._kernels`) or in their numpy twins.

Threat model: semi-honest; one of two parties may be corrupt, so all but one of n. Transfers, up to the stock, also
against dishonest parties, where they meet so; what is built on these checks its results itself. Computational: each
module states what it assumes, and docs/security.md has that in one table. Imported when parties join with ``"ot"``, and
not before, for libsodium takes time to load.
"""
