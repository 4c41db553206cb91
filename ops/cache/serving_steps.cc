// Small steps of a serving loop: the inputs of the next step (AdvanceStep, CopyAndExpandEagleInputs), rows
// into blocks by groups (StoreKvBlockMetadata, StoreKVBlock), and blocks turned around
// (TransposeKvCacheByBlock).
#include <algorithm>
#include <cstring>
#include <vector>

#include "aclnn_ops.h"
#include "base/parallel.h"
#include "ops/cache/paged_cache.h"
#include "ops/dense.h"
#include "ops/norm/operands.h"

namespace anycann {
namespace {

Status RequireIntegers(Call& call, const aclTensor* t, const char* name, int64_t count) {
  if (t->view.numel() == count && IsInteger(t->view.dtype)) return Status();
  return call.Invalid("{} has shape {} and type {}, expected {} integers", name, ShapeString(t->view),
                      Name(t->view.dtype), count);
}

struct Advance {
  int64_t sequences = 0, queries = 0, block = 0, proposed = 0;  // proposed tokens of each sequence
};

// The slot of a position in its block; a table may hold anything.
int64_t SlotOf(int64_t block, int64_t size, int64_t position) {
  return static_cast<int64_t>(static_cast<uint64_t>(block) * static_cast<uint64_t>(size) +
                              static_cast<uint64_t>(position % size));
}

// Operands: inputTokens, inputPositions, seqLens, slotMapping (all changed), sampledTokenIds, blockTables,
// and with proposals specToken, acceptedNum.
Status RunAdvance(const Run& t, const Advance& a) {
  const Values<int64_t> sampled(t[4]), table(t[5]);
  if (!sampled.ok() || !table.ok()) return ScratchFailed(t.plan().name);
  std::vector<int64_t> values[4];
  for (int i = 0; i < 4; ++i) {
    const Values<int64_t> v(t[i]);
    if (!v.ok()) return ScratchFailed(t.plan().name);
    values[i].assign(v.get(), v.get() + t[i].numel());
  }
  std::vector<int64_t>&tokens = values[0], &positions = values[1], &lengths = values[2], &slots = values[3];
  for (int64_t i = 0; i < a.sequences; ++i) {
    if (i >= a.queries) {  // padding
      tokens[i] = positions[i] = 0;
      slots[i] = -1;
      continue;
    }
    tokens[i] = sampled[i];
    positions[i] = lengths[i];
    const int64_t column = positions[i] / a.block, columns = t[5].dims[1];
    if (positions[i] < 0 || column >= columns)
      return Error(kParamInvalid,
                   "{}: seqLens has {} for sequence {}, beyond the {} blocks of {} in blockTables",
                   t.plan().name, positions[i], i, columns, a.block);
    // As op-plugin's own reference computes it: the first row's block, moved on by a row for each sequence.
    slots[i] = SlotOf(
        static_cast<int64_t>(static_cast<uint64_t>(table[column]) + static_cast<uint64_t>(columns * i)),
        a.block, positions[i]);
    ++lengths[i];
  }
  for (int i = 0; i < 4; ++i) StoreValues(t[i], values[i].data());
  return Status();
}

Status RunAdvanceProposed(const Run& t, const Advance& a) {
  const Values<int64_t> sampled(t[4]), table(t[5]), proposed(t[6]), accepted(t[7]), before(t[1]);
  if (!sampled.ok() || !table.ok() || !proposed.ok() || !accepted.ok() || !before.ok())
    return ScratchFailed(t.plan().name);
  const int64_t each = a.proposed + 1, columns = t[5].dims[1], choices = t[4].dims[1];
  std::vector<int64_t> tokens, positions, lengths, slots;
  for (int64_t i = 0; i < a.sequences; ++i) {
    int64_t least = 0;  // the last token before the first smallest value, -1 behind the end
    for (int64_t j = 0; j <= choices; ++j) {
      const int64_t v = j < choices ? sampled[i * choices + j] : -1;
      const int64_t w = least < choices ? sampled[i * choices + least] : -1;
      if (v < w) least = j;
    }
    const int64_t last = least > 0 ? least - 1 : choices - 1;
    for (int64_t j = 0; j < each; ++j) {
      tokens.push_back(j == 0 ? sampled[i * choices + last] : proposed[i * a.proposed + j - 1]);
      constexpr int64_t kMost = int64_t{1} << 48;
      const int64_t position =
          std::clamp(before[i * each + j], -kMost, kMost) + std::clamp(accepted[i], -kMost, kMost) + 1;
      const int64_t column = position / a.block;
      if (position < 0 || column >= columns)
        return Error(kParamInvalid,
                     "{}: sequence {} goes on at position {}, beyond the {} blocks of {} in blockTables",
                     t.plan().name, i, position, columns, a.block);
      positions.push_back(position);
      lengths.push_back(position + 1);
      slots.push_back(SlotOf(table[i * columns + column], a.block, position));
    }
  }
  StoreValues(t[0], tokens.data());
  StoreValues(t[1], positions.data());
  StoreValues(t[2], lengths.data());
  StoreValues(t[3], slots.data());
  return Status();
}

struct Group {
  int64_t rows, from, to;  // the first row, and the slot that it goes to
};

}  // namespace

Status aclnn::AdvanceStepV2(Call& call, const aclTensor* inputTokens, const aclTensor* sampledTokenIds,
                            const aclTensor* inputPositions, const aclTensor* seqLens,
                            const aclTensor* slotMapping, const aclTensor* blockTables,
                            const aclTensor* specToken, const aclTensor* acceptedNum, int64_t numSeqs,
                            int64_t numQueries, int64_t blockSize) {
  specToken = Given(specToken), acceptedNum = Given(acceptedNum);
  if ((specToken == nullptr) != (acceptedNum == nullptr))
    return call.Invalid("{} is absent, but {} is given", specToken == nullptr ? "specToken" : "acceptedNum",
                        specToken == nullptr ? "acceptedNum" : "specToken");
  if (blockSize < 1) return call.Invalid("blockSize is {}, expected 1 or more", blockSize);
  RETURN_IF_ERROR(call.RequireRank(blockTables, "blockTables", 2, 2));
  RETURN_IF_ERROR(call.RequireRank(sampledTokenIds, "sampledTokenIds", 2, 2));
  Advance a{numSeqs, numQueries, blockSize, 0};
  if (specToken != nullptr) {
    RETURN_IF_ERROR(call.RequireRank(specToken, "specToken", 2, 2));
    a.proposed = specToken->view.dims[1];
  }
  if (numSeqs < 0 || numSeqs > inputTokens->view.numel() || numQueries < 0 || numQueries > numSeqs)
    return call.Invalid("numSeqs is {} and numQueries {} with inputTokens {}", numSeqs, numQueries,
                        ShapeString(inputTokens->view));
  const int64_t rows = specToken == nullptr ? inputTokens->view.numel() : numSeqs * (a.proposed + 1);
  for (const auto& [t, name] :
       {std::pair{inputTokens, "inputTokens"}, std::pair{inputPositions, "inputPositions"},
        std::pair{seqLens, "seqLens"}, std::pair{slotMapping, "slotMapping"}})
    RETURN_IF_ERROR(RequireIntegers(call, t, name, rows));
  if (blockTables->view.dims[0] < numSeqs || !IsInteger(blockTables->view.dtype))
    return call.Invalid("blockTables has shape {} and type {}, expected {} rows of integers",
                        ShapeString(blockTables->view), Name(blockTables->view.dtype), numSeqs);
  if (sampledTokenIds->view.dims[0] < (specToken == nullptr ? numQueries : numSeqs) ||
      !IsInteger(sampledTokenIds->view.dtype) ||
      (specToken == nullptr ? sampledTokenIds->view.dims[1] != 1 : sampledTokenIds->view.dims[1] < 1))
    return call.Invalid("sampledTokenIds has shape {}, expected {}", ShapeString(sampledTokenIds->view),
                        specToken == nullptr ? "[numQueries,1]" : "[numSeqs,1 or more]");
  if (numSeqs == 0) return call.Nothing();
  std::vector<Arg> args{Out(inputTokens), Out(inputPositions), Out(seqLens),
                        Out(slotMapping), In(sampledTokenIds), In(blockTables)};
  if (specToken == nullptr) return call.Launch(args, Cost{}, [a](const Run& t) { return RunAdvance(t, a); });
  RETURN_IF_ERROR(RequireIntegers(call, specToken, "specToken", numSeqs * a.proposed));
  RETURN_IF_ERROR(RequireIntegers(call, acceptedNum, "acceptedNum", numSeqs));
  args.push_back(In(specToken));
  args.push_back(In(acceptedNum));
  return call.Launch(args, Cost{}, [a](const Run& t) { return RunAdvanceProposed(t, a); });
}

Status aclnn::AdvanceStep(Call& call, const aclTensor* inputTokens, const aclTensor* sampledTokenIds,
                          const aclTensor* inputPositions, const aclTensor* seqLens,
                          const aclTensor* slotMapping, const aclTensor* blockTables, int64_t numSeqs,
                          int64_t numQueries, int64_t blockSize) {
  return AdvanceStepV2(call, inputTokens, sampledTokenIds, inputPositions, seqLens, slotMapping, blockTables,
                       nullptr, nullptr, numSeqs, numQueries, blockSize);
}

// Rows for neighbouring slots of one block are a group; the groups' sizes, first rows and first slots, zeros
// behind the last.
Status aclnn::StoreKvBlockMetadata(Call& call, const aclTensor* slotMapping, const aclTensor* groupLen,
                                   const aclTensor* groupKeyIdx, const aclTensor* groupKeyCacheIdx,
                                   int64_t blockSize) {
  if (blockSize < 1) return call.Invalid("blockSize is {}, expected 1 or more", blockSize);
  const int64_t rows = slotMapping->view.numel();
  RETURN_IF_ERROR(RequireIntegers(call, slotMapping, "slotMapping", rows));
  for (const auto& [t, name] : {std::pair{groupLen, "groupLen"}, std::pair{groupKeyIdx, "groupKeyIdx"},
                                std::pair{groupKeyCacheIdx, "groupKeyCacheIdx"}})
    RETURN_IF_ERROR(RequireIntegers(call, t, name, rows));
  if (rows == 0) return call.Nothing();
  return call.Launch({In(slotMapping), Out(groupLen), Out(groupKeyIdx), Out(groupKeyCacheIdx)}, Cost{},
                     [rows, blockSize](const Run& t) -> Status {
                       const Values<int64_t> slots(t[0]);
                       if (!slots.ok()) return ScratchFailed(t.plan().name);
                       std::vector<Group> groups;
                       for (int64_t i = 0; i < rows; ++i) {
                         if (slots[i] < 0) continue;
                         Group* last = groups.empty() ? nullptr : &groups.back();
                         if (last != nullptr && last->from + last->rows == i &&
                             slots[i] - last->rows == last->to && slots[i] % blockSize != 0)
                           ++last->rows;
                         else
                           groups.push_back({1, i, slots[i]});
                       }
                       groups.resize(static_cast<size_t>(rows));
                       std::vector<int64_t> values[3];
                       for (const Group& g : groups) {
                         values[0].push_back(g.rows);
                         values[1].push_back(g.from);
                         values[2].push_back(g.to);
                       }
                       for (int i = 0; i < 3; ++i) StoreValues(t[1 + i], values[i].data());
                       return Status();
                     });
}

Status aclnn::StoreKVBlock(Call& call, const aclTensor* keyIn, const aclTensor* keyCacheIn,
                           const aclTensor* groupLen, const aclTensor* groupKeyIdx,
                           const aclTensor* groupKeyCacheIdx, int64_t blockSize) {
  RETURN_IF_ERROR(call.RequireRank(keyIn, "keyIn", 2, kMaxRank));
  RETURN_IF_ERROR(call.RequireDType(keyCacheIn, "keyCacheIn", keyIn->view.dtype));
  const int64_t rows = keyIn->view.dims[0], width = rows > 0 ? keyIn->view.numel() / rows : 0;
  PagedCache cache;
  if (rows == 0 || width == 0) return call.Nothing();
  RETURN_IF_ERROR(ReadPagedRows(call, keyCacheIn, "keyCacheIn", width, &cache));
  if (cache.page != blockSize)
    return call.Invalid("keyCacheIn has shape {}, expected blocks of blockSize {}",
                        ShapeString(keyCacheIn->view), blockSize);
  const int64_t groups = groupLen->view.numel();
  for (const auto& [t, name] : {std::pair{groupLen, "groupLen"}, std::pair{groupKeyIdx, "groupKeyIdx"},
                                std::pair{groupKeyCacheIdx, "groupKeyCacheIdx"}})
    RETURN_IF_ERROR(RequireIntegers(call, t, name, groups));
  return call.Launch({In(keyIn), In(groupLen), In(groupKeyIdx), In(groupKeyCacheIdx), Out(keyCacheIn)},
                     Cost{0, static_cast<double>(2 * keyIn->view.nbytes())}, [=](const Run& t) -> Status {
                       const DenseInput keys(t[0]);
                       const Values<int64_t> sizes(t[1]), from(t[2]), to(t[3]);
                       if (!keys.ok() || !sizes.ok() || !from.ok() || !to.ok())
                         return ScratchFailed(t.plan().name);
                       const int64_t bytes = width * cache.size;
                       for (int64_t g = 0; g < groups; ++g) {
                         if (sizes[g] <= 0) continue;
                         if (from[g] < 0 || from[g] > rows - sizes[g] || sizes[g] > rows || to[g] < 0 ||
                             sizes[g] > cache.slots() || to[g] > cache.slots() - sizes[g])
                           return Error(
                               kParamInvalid,
                               "{}: group {} has {} rows from {} to slot {}, of {} rows and {} slots",
                               t.plan().name, g, sizes[g], from[g], to[g], rows, cache.slots());
                         for (int64_t i = 0; i < sizes[g]; ++i)
                           cache.Write(t[4].bytes(), to[g] + i, keys.view().bytes() + (from[g] + i) * bytes);
                       }
                       return Status();
                     });
}

// Each named block of each layer holds [splitNum, blockSize, headNum * headDim / splitNum] and gets
// [blockSize, splitNum, ..]: what was pulled from splitNum devices becomes whole rows.
Status aclnn::TransposeKvCacheByBlock(Call& call, const aclTensorList* KCache, const aclTensorList* VCache,
                                      const aclTensor* blockIDs, int64_t blockSize, int64_t headNum,
                                      int64_t headDim, int64_t splitNum, int64_t layerNum) {
  if (static_cast<int64_t>(KCache->size) != layerNum || static_cast<int64_t>(VCache->size) != layerNum)
    return call.Invalid("KCache has {} tensors and VCache {}, expected layerNum, {}", KCache->size,
                        VCache->size, layerNum);
  if (blockSize < 1 || headNum < 1 || headDim < 1 || splitNum < 1 || headNum % splitNum != 0 ||
      headDim > (int64_t{1} << 31) / headNum)
    return call.Invalid(
        "blockSize is {}, headNum {}, headDim {} and splitNum {}: splitNum must divide headNum", blockSize,
        headNum, headDim, splitNum);
  const int64_t width = headNum * headDim, blocks = blockIDs->view.numel();
  RETURN_IF_ERROR(RequireIntegers(call, blockIDs, "blockIDs", blocks));
  std::vector<Arg> args{In(blockIDs)};
  std::vector<PagedCache> caches;
  for (const auto& [list, name] : {std::pair{KCache, "KCache"}, std::pair{VCache, "VCache"}})
    for (const aclTensor* t : *list) {
      RETURN_IF_ERROR(ReadPagedRows(call, t, name, width, &caches.emplace_back()));
      if (caches.back().page != blockSize || t->view.dtype == DType::kInt4)
        return call.Invalid("{} is {}, expected blocks of blockSize {}", name, Describe(t), blockSize);
      args.push_back(Out(t));
    }
  if (blocks == 0 || caches.empty()) return call.Nothing();
  return call.Launch(args, Cost{}, [=](const Run& t) -> Status {
    const Values<int64_t> ids(t[0]);
    if (!ids.ok()) return ScratchFailed(t.plan().name);
    for (int64_t i = 0; i < blocks; ++i)
      for (const PagedCache& c : caches)
        if (ids[i] < 0 || ids[i] >= c.pages)
          return Error(kParamInvalid, "{}: blockIDs has {}, expected 0 to {}", t.plan().name, ids[i],
                       c.pages - 1);
    for (size_t layer = 0; layer < caches.size(); ++layer) {
      const int64_t part = width / splitNum * caches[layer].size,
                    bytes = width * blockSize * caches[layer].size;
      const Scratch<char> whole(bytes);
      if (!whole.ok()) return ScratchFailed(t.plan().name);
      for (int64_t i = 0; i < blocks; ++i) {
        char* block = t[static_cast<int>(layer) + 1].bytes() + ids[i] * bytes;
        std::memcpy(whole.get(), block, static_cast<size_t>(bytes));
        for (int64_t s = 0; s < splitNum; ++s)
          for (int64_t row = 0; row < blockSize; ++row)
            std::memcpy(block + (row * splitNum + s) * part, whole.get() + (s * blockSize + row) * part,
                        static_cast<size_t>(part));
      }
    }
    return Status();
  });
}

Status aclnn::CopyAndExpandEagleInputs(
    Call& call, const aclTensor* targetTokenIds, const aclTensor* targetPositions,
    const aclTensor* nextTokenIds, const aclTensor* queryStartLoc, const aclTensor* queryEndLoc,
    int64_t paddingTokenId, int64_t parallelDraftingTokenId, int64_t numPaddingSlotsPerRequest,
    bool shiftInputIds, int64_t totalInputTokens, const aclTensor* outInputIdsOut,
    const aclTensor* outPositionsOut, const aclTensor* outIsRejectedTokenMaskOut,
    const aclTensor* outIsMaskedTokenMaskOut, const aclTensor* outNewTokenIndicesOut,
    const aclTensor* outHiddenStateMappingOut) {
  const int64_t requests = nextTokenIds->view.numel(), inputs = targetTokenIds->view.numel();
  const int64_t slots = numPaddingSlotsPerRequest, outputs = outInputIdsOut->view.numel();
  if (totalInputTokens != inputs)
    return call.Invalid("totalInputTokens is {}, targetTokenIds has {}", totalInputTokens, inputs);
  if (slots < 1 || slots > std::max<int64_t>(outputs, 1))
    return call.Invalid("numPaddingSlotsPerRequest is {}, expected 1 to {}", slots, outputs);
  RETURN_IF_ERROR(RequireIntegers(call, targetTokenIds, "targetTokenIds", inputs));
  RETURN_IF_ERROR(RequireIntegers(call, targetPositions, "targetPositions", inputs));
  RETURN_IF_ERROR(RequireIntegers(call, nextTokenIds, "nextTokenIds", requests));
  RETURN_IF_ERROR(RequireIntegers(call, queryStartLoc, "queryStartLoc", requests + 1));
  RETURN_IF_ERROR(RequireIntegers(call, queryEndLoc, "queryEndLoc", requests));
  for (const auto& [t, name] :
       {std::pair{outInputIdsOut, "outInputIds"}, std::pair{outPositionsOut, "outPositions"},
        std::pair{outIsRejectedTokenMaskOut, "outIsRejectedTokenMask"},
        std::pair{outIsMaskedTokenMaskOut, "outIsMaskedTokenMask"}}) {
    if (t->view.dtype == DType::kBool && t->view.numel() == outputs) continue;
    RETURN_IF_ERROR(RequireIntegers(call, t, name, outputs));
  }
  RETURN_IF_ERROR(RequireIntegers(call, outNewTokenIndicesOut, "outNewTokenIndices", requests * slots));
  RETURN_IF_ERROR(RequireIntegers(call, outHiddenStateMappingOut, "outHiddenStateMapping", inputs));
  if (requests == 0) return call.Nothing();
  return call.Launch(
      {In(targetTokenIds), In(targetPositions), In(nextTokenIds), In(queryStartLoc), In(queryEndLoc),
       Out(outInputIdsOut), Out(outPositionsOut), Out(outIsRejectedTokenMaskOut),
       Out(outIsMaskedTokenMaskOut), Out(outNewTokenIndicesOut), Out(outHiddenStateMappingOut)},
      Cost{}, [=](const Run& t) -> Status {
        const Values<int64_t> tokens(t[0]), positions(t[1]), next(t[2]), starts(t[3]), ends(t[4]);
        if (!tokens.ok() || !positions.ok() || !next.ok() || !starts.ok() || !ends.ok())
          return ScratchFailed(t.plan().name);
        std::vector<int64_t> ids(outputs, 0), at(outputs, 0), rejected(outputs, 0), masked(outputs, 0),
            fresh(requests * slots, 0), mapping(inputs, 0);
        for (int64_t r = 0; r < requests; ++r) {
          const int64_t begin = starts[r], end = starts[r + 1], last = ends[r];
          if (begin < 0 || end <= begin || end > inputs || last < begin - 1 || last >= end)
            return Error(kParamInvalid, "{}: request {} has rows {} to {} and ends at {}, of {} rows",
                         t.plan().name, r, begin, end, last, inputs);
          const int64_t dropped = std::max<int64_t>(end - last - 1, 0);
          const int64_t valid = last - begin + (shiftInputIds ? 0 : 1), kept = std::max<int64_t>(valid, 0);
          const int64_t first = begin + r * (slots - (shiftInputIds ? 1 : 0));
          const int64_t total = kept + slots + dropped;
          if (first + total > outputs)
            return Error(kParamInvalid, "{}: outInputIds has {} values, too few for request {}",
                         t.plan().name, outputs, r);
          const int64_t source = begin + (shiftInputIds ? 1 : 0);
          const int64_t most = shiftInputIds ? std::min(kept, inputs - source) : end - begin;
          for (int64_t j = 0; j < total; ++j) {
            const int64_t to = first + j;
            const bool drop = j >= kept + slots;
            ids[to] = j < kept    ? (most > 0 ? tokens[source + std::min(j, most - 1)] : 0)
                      : j == kept ? next[r]
                      : drop      ? paddingTokenId
                                  : parallelDraftingTokenId;
            at[to] = drop ? 0 : positions[begin] + j;
            rejected[to] = drop;
            masked[to] = !drop && j > kept;
          }
          for (int64_t k = 0; k < slots; ++k) fresh[r * slots + k] = first + kept + k;
          for (int64_t j = 0; j < end - begin && shiftInputIds; ++j) mapping[begin + j] = first + j;
        }
        const std::vector<int64_t>* made[] = {&ids, &at, &rejected, &masked, &fresh, &mapping};
        for (int i = 0; i < 6; ++i) StoreValues(t[5 + i], made[i]->data());
        return Status();
      });
}

}  // namespace anycann
