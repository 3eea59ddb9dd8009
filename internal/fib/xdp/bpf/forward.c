// SPDX-License-Identifier: (GPL-2.0-only OR BSD-3-Clause)
#include "forward.h"

SEC("xdp")
int midplane_forward(struct xdp_md *ctx)
{
	return forward(ctx, ctx->ingress_ifindex);
}

char _license[] SEC("license") = "Dual BSD/GPL";
