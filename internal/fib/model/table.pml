/* The image of a FIB: how a change is published to those who read without a lock, and when memory is used again.
 *
 * One writer, READERS readers, one observed address. Numbers 1 to 14 are next hops, each change brings a new one, so that
 * an old answer is told from a new one; FOREIGN is what other addresses and other FIBs hold. The table is the default D,
 * a prefix P1 and a longer one P2 within it. README.md says what of the image is modelled and what is not.
 */
#ifndef OPS
#define OPS 4        /* changes that the writer makes */
#endif
#ifndef READERS
#define READERS 1
#endif
#ifndef TRIES
#define TRIES 2      /* walks without the lock, then with it */
#endif
#ifndef BUFFER
#define BUFFER 2     /* stores that the writer's processor holds back */
#endif

#define BLOCKS 4
#define SIZE 16      /* words of the image: a power of two, so that a mask bounds an index */
#define EPOCH 0
#define ROOT 1       /* high octet: default; low octet: slot */
#define FIRST 2      /* blocks, of three words: vec, slot or leaf, def */
#define GONE 14      /* the handle's mark, which lives beside the image */
#define DEFAULT 15   /* only with TWO_WORDS */
#define REF 128
#define FOREIGN 15
#define SAME 255     /* a store that changes no answer */

#define at(b) (FIRST + 3*(b))
#ifdef NO_MASK
#define word(i) mem[i]
#else
#define word(i) mem[(i) & (SIZE-1)]
#endif

short mem[SIZE];
chan stores = [BUFFER] of { byte, short, byte };
byte locked;           /* the writer's lock */
byte cur;              /* what the table says of the address, in the order in which stores reach memory */
short seen[READERS];   /* bit v: the table said v since the lookup of this reader began */

/* The walk as a reader should do it, all at once: what a quiet image says. */
inline ideal(res) {
	d_step {
		res = mem[ROOT] >> 8; t = mem[ROOT] & 255;
#ifdef TWO_WORDS
		res = mem[DEFAULT];
#endif
		if :: (t & REF) -> t = t & 127;
			if :: mem[t+2] -> res = mem[t+2] :: else fi;
			if :: mem[t] -> t = mem[t+1] & 127;
				if :: mem[t+2] -> res = mem[t+2] :: else fi;
				if :: mem[t+1] -> res = mem[t+1] :: else fi;
			:: else -> if :: mem[t+1] -> res = mem[t+1] :: else fi
			fi
		:: else fi;
		t = 0
	}
}

/* Memory: stores of one processor arrive in their order (TSO). */
active proctype memory() {
	byte i, c; short v;
end:	do
	:: atomic {
#ifdef UNORDERED
		if :: stores?i,v,c
		   :: len(stores) > 1 -> byte i2, c2; short v2; stores?i2,v2,c2; stores?i,v,c; stores!i2,v2,c2; i2 = 0; v2 = 0; c2 = 0
		fi;
#else
		stores?i,v,c;
#endif
		mem[i] = v;
		if :: c != SAME -> cur = c;
			i = 0; do :: i < READERS -> seen[i] = seen[i] | (1 << c); i++ :: else -> break od
		:: else fi;
		i = 0; v = 0; c = 0
	}
	od
}

inline st(i, v, says) { stores!i,v,says }

inline bump() { epoch++; st(EPOCH, epoch, SAME) }

/* What was unlinked becomes free, but only behind a new epoch. */
inline recycle() {
#if defined(NO_BUMP)
	skip;
#elif defined(LATE_BUMP)
	late = 1;
#else
	bump();
#endif
	free = free | quarantine; quarantine = 0
}

inline alloc(x) {
	if :: free == 0 -> recycle() :: else fi;
	atomic { x = 0; do :: free & (1 << x) -> break :: else -> x++ od; free = free & ~(1 << x); x = at(x) }
}

inline retire(x) {
	atomic { if :: x -> quarantine = quarantine | (1 << ((x - FIRST) / 3)) :: else fi; x = 0 }
}

inline fill(x, vec, slot, def) { st(x, vec, SAME); st(x+1, slot, SAME); st(x+2, def, SAME) }

/* Build, then publish by one store. */
#ifdef PUBLISH_FIRST
#define build_publish(x, vec, slot, def, i, v, says) st(i, v, says); fill(x, vec, slot, def)
#else
#define build_publish(x, vec, slot, def, i, v, says) fill(x, vec, slot, def); st(i, v, says)
#endif

#ifdef TWO_WORDS
#define rootword(d, s) (s)
#else
#define rootword(d, s) (((d) << 8) | (s))
#endif
#define slotof(b) ((b) + ((b) > 0) * REF)
#define answer(p2, p1, d) ((p2) + ((p2) == 0) * ((p1) + ((p1) == 0) * (d)))

inline setroot() {
	st(ROOT, rootword(D, slotof(b1)), answer(P2, P1, D))
}

active proctype writer() {
	byte n, t, v, ops, epoch, free = (1 << BLOCKS) - 1, quarantine, b1, b2, other, D, P1, P2, late, removed, old;
	do
	:: ops < OPS && !removed ->
		atomic { locked == 0 -> locked = 1 }
		ops++; v = ops;
		if
		/* the longer prefix, with a block of its own: insert, replace, withdraw by copying the block */
		:: b2 -> if :: skip :: v = 0 fi; alloc(n);
			build_publish(n, 0, v, 0, b1+1, REF|n, answer(v, P1, D));
			P2 = v; retire(b2); b2 = n
		/* the block goes: the one above is copied without it */
		:: b2 -> alloc(n); P2 = 0;
			build_publish(n, 0, P1, 0, ROOT, rootword(D, REF|n), answer(0, P1, D));
			retire(b2); retire(b1); b1 = n
		/* a block comes, below a copy of the one above; it is filled before that, which is filled before it is published */
		:: b1 && !b2 -> alloc(n); fill(n, 0, v, 0); P2 = v; b2 = n;
			alloc(n); build_publish(n, 1, REF|b2, P1, ROOT, rootword(D, REF|n), answer(P2, P1, D));
			retire(b1); b1 = n
		/* the shorter prefix, where there is no block below: by copying */
		:: !b2 -> if :: skip :: v = 0 fi; alloc(n); P1 = v;
			build_publish(n, 0, P1, 0, ROOT, rootword(D, REF|n), answer(0, P1, D));
			retire(b1); b1 = n
		/* the shorter prefix, as what is best so far for the blocks below: in place. A reader may hold the old one and then
		 * meet a later change below; the epoch keeps the two apart. */
		:: b2 -> if :: skip :: v = 0 fi; P1 = v; st(b1+2, P1, answer(P2, P1, D));
#ifndef DEF_NO_BUMP
			bump();
#endif
		/* the default, in place, likewise */
		:: if :: skip :: v = 0 fi; D = v;
#ifdef TWO_WORDS
			st(DEFAULT, D, answer(P2, P1, D));
#else
			setroot();
#endif
#ifndef DEFAULT_NO_BUMP
			bump();
#endif
		/* other addresses of this FIB use the same memory; what is in it may look like anything */
		:: other == 0 -> alloc(other);
			if :: fill(other, 1, 255, FOREIGN) :: fill(other, 0, FOREIGN, FOREIGN) fi
		:: other -> retire(other)
		/* the whole table is swapped */
		:: alloc(n); fill(n, 0, v, 0); old = b1; b1 = n; D = v; P1 = v; P2 = 0;
#ifdef TWO_WORDS
			st(DEFAULT, D, SAME);
#endif
			setroot(); retire(old); retire(b2)
#ifdef TWO_WORDS
			; bump()
#endif
		/* the FIB is removed, and its descriptor and memory given to another */
		:: ops == OPS ->
			removed = 1; D = 0; P1 = 0; P2 = 0; st(GONE, 1, 0); old = b1; b1 = 0;
#ifdef TWO_WORDS
			st(DEFAULT, 0, SAME);
#endif
			setroot(); retire(old); retire(b2); retire(other);
#ifdef NO_REMOVE_BUMP
			free = free | quarantine; quarantine = 0;
#else
			recycle();
#endif
			alloc(n); fill(n, 0, FOREIGN, FOREIGN);
#ifdef EPOCH_RESET
			epoch = 0; st(EPOCH, 0, SAME);
#endif
			st(ROOT, rootword(FOREIGN, REF|n), SAME);
			alloc(n); fill(n, 1, 255, FOREIGN)
		fi;
		if :: late -> late = 0; bump() :: else fi;
		n = 0; v = 0; old = 0;
		/* letting go of a lock waits for the stores before it; a quiet image says what the table does */
		atomic {
			empty(stores) -> locked = 0;
			if :: !removed -> ideal(v); assert(v == cur && cur == answer(P2, P1, D)); v = 0 :: else fi
		}
	:: else -> break
	od
}

#define in_image(i) assert(((i)) >= 0 && (i) < SIZE)

#ifdef NO_MASK
#define load(x, i) atomic { in_image(i); x = word(i) }
#else
#define load(x, i) x = word(i)
#endif

proctype reader(byte me) {
	byte tries, level, best, b; short e, e2, s, w;
	seen[me] = 1 << cur;
again:
	if
	:: tries == TRIES -> atomic { locked == 0 -> locked = 2 }
	:: else
	fi;
	load(e, EPOCH);
	best = 0;
#ifdef HANDLE_FIRST
	load(w, GONE); if :: w -> w = 0; goto done :: else fi;
#endif
	load(s, ROOT);
#ifdef TWO_WORDS
	load(best, DEFAULT);
#else
	best = s >> 8;
#endif
	s = s & 255; level = 0;
	do
	:: s & REF && level < 2 ->
		level++; b = s & 127;
		load(w, b+2); if :: w -> best = w & 255 :: else fi;
		load(w, b);
#ifdef EARLY_SECOND
		load(e2, EPOCH);
#endif
		load(s, b+1); s = s & 255;
		if :: w == 0 -> if :: s -> best = s :: else fi; break
		   :: else fi
	:: else -> if :: !(s & REF) && s -> best = s :: else fi; break
	od;
	w = 0; s = 0; b = 0; level = 0;
#ifndef EARLY_SECOND
	load(e2, EPOCH);
#endif
#ifndef NO_SECOND
	if :: e2 != e -> assert(tries < TRIES); tries++; goto again :: else fi;
#endif
#if !defined(NO_HANDLE) && !defined(HANDLE_FIRST)
	load(w, GONE); if :: w -> best = 0 :: else fi;
#endif
done:
	/* accepted: the table held it at some moment of this lookup */
	atomic {
		assert(best < 16 && (seen[me] & (1 << best)));
		if :: tries == TRIES -> locked = 0 :: else fi
	}
}

init { atomic { byte r; do :: r < READERS -> run reader(r); r++ :: else -> break od } }
